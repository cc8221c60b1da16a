from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.records import FailureKind
from tuner.servers.vllm.log.diagnosis import VllmLog

LOG = VllmLog()

CONFIGURATION, INFRASTRUCTURE, UNSTABLE = (
    FailureKind.CONFIGURATION,
    FailureKind.INFRASTRUCTURE,
    FailureKind.UNSTABLE,
)
LOGS = Path(__file__).parents[2] / "logs"  # of vLLM 0.32.0 on a CPU

REAL = [
    ("unknown-flag", CONFIGURATION, "unrecognized arguments: --max-num-seqz 3"),
    ("bad-value", CONFIGURATION, "argument --max-num-seqs: invalid int value: 'many'"),
    ("batch-below-sequences", CONFIGURATION, "(16) must be greater than or equal to max_num_seqs"),
    ("memory-fraction-over-one", CONFIGURATION, "gpu_memory_utilization: Input should be less"),
    ("no-sequences", CONFIGURATION, "max_num_seqs: Input should be greater than or equal to 1"),
    ("tensor-parallel", CONFIGURATION, "attention heads (4) must be divisible by tensor"),
    ("missing-model", CONFIGURATION, "'/models/nothing'"),
    ("kv-cache-beyond-memory", CONFIGURATION, "less than requested memory for kv (500.0 GiB)"),
    ("no-kv-cache", CONFIGURATION, "No available memory for the cache blocks"),
    ("context-beyond-kv-cache", CONFIGURATION, "larger than the available KV cache memory"),
    ("port-taken", INFRASTRUCTURE, "[Errno 98] Address already in use"),
    ("worker-crash", UNSTABLE, "Fatal Python error: Illegal instruction"),
]

CORE = "(EngineCore pid=7) ERROR 11-23 21:44:39 [core.py:1510] "
ON_GPU = [
    (
        "ValueError: Free memory on device cuda:0 (30.1/79.1 GiB) on startup is less than desired "
        "GPU memory utilization (0.92, 72.8 GiB). Decrease GPU memory utilization or reduce GPU "
        "memory used by other processes.",
        INFRASTRUCTURE,
    ),
    (
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy "
        "requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization`",
        CONFIGURATION,
    ),
    (
        "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens "
        "that can be stored in KV cache (60000).",
        CONFIGURATION,
    ),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 9.00 GiB.", CONFIGURATION),
    (
        "AssertionError: Error in memory profiling. Initial free memory 60.1 GiB, current free "
        "memory 70.2 GiB.",
        INFRASTRUCTURE,
    ),
    ("RuntimeError: No CUDA GPUs are available", INFRASTRUCTURE),
    ("torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered", INFRASTRUCTURE),
    ("OSError: [Errno 28] No space left on device", INFRASTRUCTURE),
    ("RuntimeError: CUDA error: an illegal memory access was encountered", UNSTABLE),
]
LATER = (
    "(APIServer pid=1) ERROR 11-23 21:45:00 [x.py:1] RuntimeError: cancelled\n"
    "RuntimeError: Engine core initialization failed. See root cause above. "
    "Failed core proc(s): {}\n"
)


@pytest.mark.parametrize(("name", "kind", "says"), REAL, ids=[case[0] for case in REAL])
def test_real_logs(name: str, kind: FailureKind, says: str) -> None:
    failure = LOG.diagnose_launch((LOGS / f"{name}.log").read_text(), 1, timed_out=False)
    assert failure.kind is kind
    assert says in failure.reason
    assert "\n" not in failure.reason


@pytest.mark.parametrize("name", [case[0] for case in REAL] + ["healthy"])
def test_a_real_log_says_the_same_in_colours_and_through_docker(name: str) -> None:
    """vLLM 0.11 to 0.13 colour files too."""
    plain = (LOGS / f"{name}.log").read_text()
    coloured = re.sub(r"^(\(\w+ pid=\d+\))", "\x1b[1;36m\\1\x1b[0;0m", plain, flags=re.M)
    timed = re.sub(r"^", "2026-11-23T21:44:39.123456789Z ", plain, flags=re.M)
    for log in (coloured, timed):
        for code in (1, -9):
            said = LOG.diagnose_launch(log, code, timed_out=False)
            assert said == LOG.diagnose_launch(plain, code, timed_out=False)
        assert LOG.has_dead_engine(log) is LOG.has_dead_engine(plain)


def test_every_log_is_looked_at() -> None:
    assert {path.stem for path in LOGS.iterdir()} == {case[0] for case in REAL} | {"healthy"}


def test_the_warnings_of_a_healthy_start_explain_nothing() -> None:
    log = (LOGS / "healthy.log").read_text()
    assert "Too many open files" in log  # in a warning
    assert "ValueError: Tokenizer not available" in log  # in a warning
    failure = LOG.diagnose_launch(log, -9, timed_out=False)
    assert failure.kind is UNSTABLE
    assert failure.reason.startswith("vLLM was killed by SIGKILL; the last line of its log: ")


@pytest.mark.parametrize(("line", "kind"), ON_GPU)
def test_the_root_error_decides_wherever_it_stands(line: str, kind: FailureKind) -> None:
    failure = LOG.diagnose_launch(f"{CORE}Traceback:\n{CORE}{line}\n{LATER}", 1, timed_out=False)
    assert failure.kind is kind
    assert line[:60] in failure.reason


def test_memory_explains_the_lost_connections_of_the_other_workers() -> None:
    lost = "(Worker pid=8) ERROR 11-23 21:44:38 [a.py:1] RuntimeError: Connection reset by peer"
    log = f"{lost}\n{CORE}{ON_GPU[3][0]}\n"
    assert LOG.diagnose_launch(log, 1, timed_out=False).kind is CONFIGURATION
    assert LOG.diagnose_launch(lost, 1, timed_out=False).kind is INFRASTRUCTURE


@pytest.mark.parametrize(("asked", "kind"), [("9.0", INFRASTRUCTURE), ("9.6", CONFIGURATION)])
def test_memory_that_the_device_has_is_held_by_others(asked: str, kind: FailureKind) -> None:
    line = (
        f"ValueError: Available memory on node 0 (8.18/9.59 GiB) on kv cache allocation is less "
        f"than requested memory for kv ({asked} GiB). Decrease --kv-cache-memory-bytes"
    )
    assert LOG.diagnose_launch(CORE + line, 1, timed_out=False).kind is kind


def test_a_timeout_is_unstable_whatever_was_retried_in_the_log() -> None:
    failure = LOG.diagnose_launch(f"{CORE}ValueError: retried\n", None, timed_out=True)
    assert failure.kind is UNSTABLE
    assert failure.reason == "vLLM was not ready before its deadline: ValueError: retried"


@pytest.mark.parametrize(
    ("exit_code", "says"),
    [
        (None, "vLLM lost its engine under load"),
        (3, "vLLM ended with code 3 under load"),
        (-int(signal.SIGSEGV), "vLLM was killed by SIGSEGV under load"),
    ],
)
def test_a_death_under_load_is_unstable(exit_code: int | None, says: str) -> None:
    failure = LOG.diagnose_death((LOGS / "worker-crash.log").read_text(), exit_code)
    assert failure.kind is UNSTABLE
    assert failure.reason == f"{says}: Fatal Python error: Illegal instruction"


LINE = st.sampled_from([case[0] for case in ON_GPU]) | st.text(max_size=80)
PREFIX = st.sampled_from(["", CORE, CORE.replace("ERROR", "INFO"), "(Worker pid=1) "])


@given(
    lines=st.lists(st.tuples(PREFIX, LINE), max_size=20),
    exit_code=st.none() | st.integers(-70, 255),
    timed_out=st.booleans(),
)
def test_any_log_gives_one_short_sentence(lines, exit_code, timed_out) -> None:
    log = "\n".join(prefix + line for prefix, line in lines)
    for failure in (
        LOG.diagnose_launch(log, exit_code, timed_out),
        LOG.diagnose_death(log, exit_code),
    ):
        assert failure.reason.strip()
        assert len(failure.reason) <= 400
        assert len(failure.reason.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
        "RuntimeError: NVML: GPU is lost",
        "NVRM: Xid (PCI:0000:17:00): 79, pid=1234, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:17:00): 48, DBE (double bit error) ECC Error",
    ],
)
def test_a_broken_gpu_is_not_the_servers_fault(line: str) -> None:
    assert LOG.broken_gpu(f"INFO fine\n(EngineCore_0 pid=7) {line}\nmore") == line


def test_other_errors_of_a_gpu_are_no_reason_to_stop_the_night() -> None:
    for line in ("NVRM: Xid (PCI:0000:17:00): 13, Graphics Exception", "CUDA out of memory", ""):
        assert LOG.broken_gpu(line) is None


def test_an_engine_that_died_behind_a_living_server() -> None:
    log = (
        "(EngineCore_0 pid=7) ERROR 11-20 10:00:05 [core.py:708] EngineCore encountered a fatal "
        "error.\nRuntimeError: CUDA error: an illegal memory access was encountered\n"
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."
    )
    assert LOG.has_dead_engine(log)
    assert not LOG.has_dead_engine("INFO 11-20 10:00:00 [core.py:58] Initializing a V1 LLM engine")
    death = LOG.diagnose_death(log, None)
    assert death.kind is FailureKind.UNSTABLE
    assert "lost its engine under load" in death.reason
    assert "illegal memory access" in death.reason
