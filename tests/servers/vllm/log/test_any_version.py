"""One root error gives one class, whichever vLLM wrote the log and whatever else is in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.hostile import cases
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
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 6.00 GiB. GPU 0 has a total "
    "capacity of 79.11 GiB of which 1.25 GiB is free. "
)

# An error as its process raises it, the class, and words that the reason must quote.
ROOTS: list[tuple[str, FailureKind, str]] = [
    # other people's memory
    (
        "ValueError: Free memory on device (3.5/23.6 GiB) on startup is less than desired GPU "
        "memory utilization (0.9, 21.2 GiB). Decrease GPU memory utilization.",
        INFRASTRUCTURE,
        "(3.5/23.6 GiB)",
    ),
    (
        "ValueError: Free memory on device xpu:0 (3.5/23.6 GiB) on startup is less than desired "
        "GPU memory utilization (0.9, 21.2 GiB).",
        INFRASTRUCTURE,
        "xpu:0",
    ),
    (
        f"{OOM}Process 77001 has 60.10 GiB memory in use. Including non-PyTorch memory, this "
        "process has 17.70 GiB memory in use. Of the allocated memory 16.00 GiB is allocated by "
        "PyTorch, and 0.50 GiB is reserved by PyTorch but unallocated.",
        INFRASTRUCTURE,
        "Process 77001",
    ),
    (
        f"{OOM}Process 77001 has 77.80 GiB memory in use. Of the allocated memory 76.00 GiB is "
        "allocated by PyTorch, and 0.50 GiB is reserved by PyTorch but unallocated.",
        CONFIGURATION,  # in a container its own process has a number like any other
        "CUDA out of memory",
    ),
    (
        f"{OOM}Process 77001 has 17179869184.00 GiB memory in use. Including non-PyTorch memory, "
        "this process has 77.86 GiB memory in use.",
        CONFIGURATION,  # 2**64 bytes: NVML did not tell
        "17179869184",
    ),
    (
        f"{OOM}Including non-PyTorch memory, this process has 77.86 GiB memory in use.",
        CONFIGURATION,
        "CUDA out of memory",
    ),
    (
        "AssertionError: Error in memory profiling. Initial used memory 800, currently used memory "
        "700. This happens when the GPU memory was not properly cleaned up.",
        INFRASTRUCTURE,
        "memory profiling",
    ),
    # memory by other names
    (
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:77, unhandled cuda error "
        "(run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5\n"
        "ncclUnhandledCudaError: Call to CUDA function failed.\n"
        "Last error:\n"
        "Cuda failure 2 'out of memory'",
        CONFIGURATION,
        "Cuda failure 2 'out of memory'",
    ),
    (
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        CONFIGURATION,
        "CUBLAS_STATUS_ALLOC_FAILED",
    ),
    (
        'RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":1016,'
        " please report a bug to PyTorch.",
        CONFIGURATION,
        "NVML_SUCCESS",
    ),
    ("RuntimeError: CUDA Error: out of memory at cumem_allocator.cpp:62", CONFIGURATION, "cumem"),
    (
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 147456, "
        "Hardware limit: 101376. Reducing block sizes may help.",
        CONFIGURATION,
        "Required: 147456",
    ),
    ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
     INFRASTRUCTURE, "running low"),
    # the hub and the network, whoever wraps them
    (
        "OSError: We couldn't connect to 'https://hub.example' to load this file.",
        INFRASTRUCTURE,
        "couldn't connect",
    ),
    (
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate "
        "the file on the Hub and we cannot find it in the local cache. Check your connection.",
        INFRASTRUCTURE,
        "LocalEntryNotFoundError",
    ),
    (
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate snapshot "
        "folder and outgoing traffic has been disabled.",
        CONFIGURATION,
        "outgoing traffic",
    ),
    (
        "huggingface_hub.errors.HfHubHTTPError: 503 Server Error: Service Unavailable for url: x",
        INFRASTRUCTURE,
        "503",
    ),
    (
        "httpx.HTTPStatusError: Server error '502 Bad Gateway' for url 'https://hub.example'",
        INFRASTRUCTURE,
        "502",
    ),
    (
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. Access to model m is restricted.",
        CONFIGURATION,
        "restricted",
    ),
    ("requests.exceptions.ReadTimeout", INFRASTRUCTURE, "ReadTimeout"),
    ("RuntimeError: Failed to fetch: [Errno -3] Temporary failure in name resolution",
     INFRASTRUCTURE, "name resolution"),
    # files
    ("OSError: [Errno 116] Stale file handle: '/mnt/models/a.safetensors'", INFRASTRUCTURE, "116"),
    ("OSError: [Errno 5] Input/output error", INFRASTRUCTURE, "[Errno 5]"),
    ("RuntimeError: Transport endpoint is not connected (os error 107)", INFRASTRUCTURE, "107"),
    ("OSError: [Errno 30] Read-only file system: '/root/.cache/vllm'", INFRASTRUCTURE, "30"),
    ("OSError: [Errno 2] No such file or directory: '/models/typo'", CONFIGURATION, "typo"),
    # a broken installation, and one that lacks what the configuration asks for
    ("ImportError: /opt/v/_C.abi3.so: undefined symbol: _ZN3c104cuda", INFRASTRUCTURE, "undefined"),
    ("ImportError: libcublas.so.12: cannot open shared object file", INFRASTRUCTURE, "libcublas"),
    ("ModuleNotFoundError: No module named 'flashinfer'", CONFIGURATION, "flashinfer"),
    ("ModuleNotFoundError: No module named 'vllm._C'", INFRASTRUCTURE, "vllm._C"),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
     INFRASTRUCTURE, "too old"),
    # broken tool chains and drivers
    ("torch._inductor.exc.InductorError: CalledProcessError: Command '['/usr/bin/gcc', "
     "'/tmp/t/main.c', '-O3', '-lcuda']' returned non-zero exit status 1.", INFRASTRUCTURE, "gcc"),
    ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
     INFRASTRUCTURE, "C compiler"),
    ("pynvml.NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch.",
     INFRASTRUCTURE, "version mismatch"),
    ("triton.runtime.errors.OutOfResources: out of resource: tensor memory, Required: 640, "
     "Hardware limit: 512.", CONFIGURATION, "tensor memory"),
    # refusals, and what may be chance
    ("ValueError: Total number of attention heads (40) must be divisible by tensor parallel size "
     "(3).", CONFIGURATION, "(40)"),
    (
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for CompilationConfig\n"
        "mode\n"
        "  Input should be a valid integer [type=int_parsing, input_value='x', input_type=str]\n"
        "    For further information visit https://example",
        CONFIGURATION,
        "mode: Input should be a valid integer",
    ),
    ("torch._dynamo.exc.BackendCompilerFailed: backend='vllm' raised: broken", UNSTABLE, "broken"),
    ("torch.AcceleratorError: CUDA error: an illegal memory access was encountered", UNSTABLE,
     "illegal memory access"),
    ("RuntimeError: NCCL error: unhandled system error", UNSTABLE, "unhandled system error"),
]  # fmt: skip

ENGINE = "EngineCore_DP0 pid=41"


def plain(process: str, level: str, text: str) -> str:
    return f"({process}) {level} 11-23 21:44:39 [core.py:708] {text}"


def coloured(process: str, level: str, text: str) -> str:
    return f"\x1b[1;36m({process})\x1b[0;0m {level} 11-23 21:44:39 [core.py:708] {text}"


def coloured_by_hand(process: str, level: str, text: str) -> str:
    return f"\x1b[36m({process})\x1b[0m \x1b[31m{level}\x1b[0m 11-23 21:44:39 [core.py:708] {text}"


def without_bracket(process: str, level: str, text: str) -> str:
    return f"({process}) {level} 07-24 08:26:01 core.py:226] {text}"


def without_process(process: str, level: str, text: str) -> str:
    return f"{level} 05-06 16:54:45 [core.py:396] {text}"


def rank_named(process: str, level: str, text: str) -> str:
    return f"(VllmWorker rank=0 pid=41) {level} 05-19 06:58:49 [core.py:470] {text}"


def with_dockers_time(process: str, level: str, text: str) -> str:
    return f"2026-09-10T08:29:04.123456Z {plain(process, level, text)}"


def with_journals_time(process: str, level: str, text: str) -> str:
    return f"Nov 23 21:44:39 node7 vllm[812]: {plain(process, level, text)}"


def colours_spelled_out(process: str, level: str, text: str) -> str:
    return coloured(process, level, text).replace("\x1b", "#033")


def with_the_kubelets_time(process: str, level: str, text: str) -> str:
    return f"2026-09-10T08:29:04.123456789Z stderr F {plain(process, level, text)}"


def with_mpis_rank(process: str, level: str, text: str) -> str:
    return f"[1,0]<stderr>: {plain(process, level, text)}"


def with_sruns_label(process: str, level: str, text: str) -> str:
    return f"0: {plain(process, level, text)}"


FORMS: list[Callable[[str, str, str], str]] = [
    plain, coloured, coloured_by_hand, without_bracket, without_process, rank_named,
    with_dockers_time, with_journals_time, colours_spelled_out,
    with_the_kubelets_time, with_mpis_rank, with_sruns_label,
]  # fmt: skip

WARNING = "WARNING"
NOISE = [
    (WARNING, "Found ulimit of 20000 and failed to automatically increase with error x. This can "
     "cause fd limit errors like `OSError: [Errno 24] Too many open files`."),
    (WARNING, "Retrying in 2s [Retry 1/5]."),
    (WARNING, "ValueError: Tokenizer not available"),
    ("INFO", "Free memory on device cuda:0 (70.1/79.1 GiB) on startup."),
    ("ERROR", "requests.exceptions.ConnectionError: Connection timed out, retrying (1/5)"),
    ("ERROR", "RuntimeError: No space left on device; falling back to the default folder"),
]  # fmt: skip
RAW_NOISE = [
    "'(ReadTimeoutError(\"Read timed out.\"), '(Request ID: 1)')' thrown while requesting HEAD x",
    "[W1123 21:44:39.1 socket.cpp:204] [c10d] The client socket has failed to connect "
    "(errno: 111 - Connection refused).",
    "Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00,  2.76it/s]",
    "Exception ignored in: <function BaseEngine.__del__ at 0x7f>",
    "/opt/v/x.py:254: UserWarning: There appear to be 1 leaked objects, Connection reset",
    "",
]


def log_of(root: str, form: Callable[[str, str, str], str], noise: list[str]) -> str:
    told = ["Traceback (most recent call last):", '  File "/opt/v/core.py", line 1, in run', root]
    lines = "\n".join(told).split("\n")
    fatal = [form(ENGINE, "ERROR", text) for text in ["EngineCore failed to start.", *lines]]
    last = "(APIServer pid=11) RuntimeError: Engine core initialization failed. See root cause " \
        "above. Failed core proc(s): {}"  # fmt: skip
    return "\n".join([*noise, *fatal, last])


@pytest.mark.parametrize(("root", "kind", "quoted"), ROOTS, ids=[root[2] for root in ROOTS])
@pytest.mark.parametrize("form", FORMS)
def test_the_class_of_an_error(
    root: str, kind: FailureKind, quoted: str, form: Callable[[str, str, str], str]
) -> None:
    failure = LOG.diagnose_launch(log_of(root, form, []), 1, timed_out=False)
    assert failure.kind is kind, failure.reason
    assert quoted in failure.reason


def noises(form: Callable[[str, str, str], str]) -> st.SearchStrategy[list[str]]:
    logged = st.sampled_from(NOISE).map(lambda noise: form(ENGINE, *noise))
    return st.lists(st.one_of(logged, st.sampled_from(RAW_NOISE)), max_size=8)


@cases(2.0)
@given(st.data())
def test_noise_colours_and_versions_change_no_class(data: st.DataObject) -> None:
    root, kind, quoted = data.draw(st.sampled_from(ROOTS))
    form = data.draw(st.sampled_from(FORMS))
    failure = LOG.diagnose_launch(log_of(root, form, data.draw(noises(form))), 1, timed_out=False)
    assert failure.kind is kind, failure.reason
    assert quoted in failure.reason
    assert failure.reason.isprintable()
    assert len(failure.reason) <= 400


@pytest.mark.parametrize("form", FORMS)
def test_an_error_that_its_process_survived_decides_nothing(
    form: Callable[[str, str, str], str],
) -> None:
    """Before 0.11 no line names a process, and nobody can tell what survived: the last decides."""
    hiccup = [
        form(ENGINE, "ERROR", "Traceback (most recent call last):"),
        form(ENGINE, "ERROR", "ConnectionError: Connection timed out"),
        form(ENGINE, "INFO", "Loading weights took 3.1 seconds"),
    ]
    log = log_of("ValueError: no such dtype", form, hiccup)
    assert LOG.diagnose_launch(log, 1, timed_out=False).kind is CONFIGURATION


def test_the_last_error_of_the_api_process_decides_and_a_chain_its_first() -> None:
    log = (
        "(APIServer pid=1) Traceback (most recent call last):\n"
        "(APIServer pid=1) requests.exceptions.ConnectTimeout: slow\n"
        "(APIServer pid=1) INFO 11-23 21:44:39 [a.py:1] downloaded\n"
        "(APIServer pid=1) Traceback (most recent call last):\n"
        "(APIServer pid=1) KeyError: 'new_model'\n"
        "(APIServer pid=1) \n"
        "(APIServer pid=1) During handling of the above exception, another exception occurred:\n"
        "(APIServer pid=1) \n"
        "(APIServer pid=1) Traceback (most recent call last):\n"
        "(APIServer pid=1) ValueError: model type `new_model` is not known\n"
    )
    failure = LOG.diagnose_launch(log, 1, timed_out=False)
    assert failure.kind is CONFIGURATION
    assert "model type `new_model` is not known" in failure.reason
    network = log.replace("KeyError: 'new_model'", "OSError: [Errno 101] Network is unreachable")
    assert LOG.diagnose_launch(network, 1, timed_out=False).kind is INFRASTRUCTURE


def test_a_message_of_the_parser_that_goes_on_below() -> None:
    log = (
        "usage: vllm serve [model_tag] [options]\n"
        "vllm serve: error: argument --compilation-config/-O: 1 validation error for "
        "CompilationConfig\n"
        "  Input should be an object [type=dict_type, input_value=3, input_type=int]\n"
        "    For further information visit https://example\n"
    )
    failure = LOG.diagnose_launch(log, 2, timed_out=False)
    assert failure.kind is CONFIGURATION
    assert "--compilation-config/-O" in failure.reason
    assert failure.reason.endswith("Input should be an object")


def test_the_words_of_vllm_0_8_for_a_process_that_ends() -> None:
    lines = [
        "ERROR 03-21 10:00:00 [core.py:343] EngineCore hit an exception: Traceback (most recent "
        "call last):",
        'ERROR 03-21 10:00:00 [core.py:343]   File "/opt/v/core.py", line 1, in run',
        "ERROR 03-21 10:00:00 [core.py:343] triton.compiler.Unsupported: no such tile",
        "ERROR 03-21 10:00:00 [core.py:343] ",
        "CRITICAL 03-21 10:00:00 [core_client.py:269] Got fatal signal from worker processes, "
        "shutting down. See stack trace above for root cause issue.",
    ]
    hiccup = ["ERROR 03-21 09:59:00 [hub.py:1] ConnectionError: Connection timed out"]
    failure = LOG.diagnose_launch("\n".join([*hiccup, *lines]), -9, timed_out=False)
    assert failure.kind is UNSTABLE
    assert "triton.compiler.Unsupported: no such tile" in failure.reason


def test_nccls_own_warning_explains_its_error() -> None:
    error = "RuntimeError: NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)"
    warning = "node7:213:213 [1] NCCL WARN Cuda failure 2 'out of memory'"
    failure = LOG.diagnose_launch(log_of(error, plain, [warning]), 1, timed_out=False)
    assert failure.kind is CONFIGURATION
    assert "Cuda failure 2 'out of memory'" in failure.reason
    assert LOG.diagnose_launch(log_of(error, plain, []), 1, timed_out=False).kind is UNSTABLE


@pytest.mark.parametrize(
    "line",
    [
        "(APIServer pid=1) ERROR 01-16 17:16:49 [core_client.py:605] Engine core proc "
        "EngineCore_DP0 died unexpectedly, shutting down client.",
        "\x1b[1;36m(EngineCore pid=2)\x1b[0;0m ERROR 05-06 16:54:45 [multiproc_executor.py:123] "
        "Worker proc VllmWorker-1 died unexpectedly, shutting down executor.",
        "ERROR 05-06 16:54:45 [ray_executor_v2.py:464] RayWorkerProc rank=[3] died unexpectedly, "
        "shutting down executor.",
    ],
)
def test_an_engine_that_somebody_killed_is_seen(line: str) -> None:
    log = f"INFO:     Application startup complete.\n{line}\n"
    assert LOG.has_dead_engine(log)
    death = LOG.diagnose_death(log, None)
    assert death.kind is UNSTABLE
    assert "died unexpectedly" in death.reason


def test_an_engine_that_the_host_killed_is_named() -> None:
    log = (
        "(EngineCore_DP0 pid=9) INFO 11-23 21:44:39 [loader.py:1] Loading weights\n"
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {'EngineCore_DP0': -9}\n"
    )
    failure = LOG.diagnose_launch(log, 1, timed_out=False)
    assert failure.kind is UNSTABLE
    assert "EngineCore_DP0 was killed by SIGKILL" in failure.reason
