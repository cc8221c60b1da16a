"""What the emulated server logs when it refuses to start is what the tuner knows of a real one."""

import io
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.catalog.gpu import gpu_names, load_gpu
from tuner.catalog.model import load_model, model_names
from tuner.configuration import Value
from tuner.emulator.__main__ import DATE_FORMAT, LOG_FORMAT, main, say_refusal
from tuner.emulator.launch_rules import resolve
from tuner.emulator.refusal import LaunchRefusedError
from tuner.records import FailureKind
from tuner.servers.vllm.log.diagnosis import VllmLog
from tuner.spec.knobs import Choice
from tuner.spec.search_space import load_space

LOGS = Path(__file__).parent.parent / "servers" / "logs"  # of vLLM 0.32.0
MODELS = {name: load_model(name) for name in model_names()}
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the server writes, as a file would get it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(LOG_FORMAT, DATE_FORMAT))
    logger = logging.getLogger("vllm")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)


def words(flags: dict[str, Value]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def corners() -> list[dict[str, Value]]:
    """Both ends of each knob of the default search space, with each of the others."""
    found: list[dict[str, Value]] = [{}]
    for _, name, knob in load_space("default").knobs():
        assert not isinstance(knob, Choice)
        found = [{**one, name: end} for one in found for end in (knob.low, knob.high)]
    return found


@pytest.mark.parametrize("gpu", gpu_names())
def test_every_refusal_of_the_default_space_is_the_configurations_fault(
    gpu: str, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    refused, known = 0, load_gpu(gpu)
    for name, (flags, shards) in itertools.product(
        model_names(), itertools.product(corners(), (1, 2))
    ):
        try:
            resolve(MODELS[name], known, {**flags, "tensor_parallel_size": shards})
        except LaunchRefusedError as error:
            refused += 1
            log.seek(0)
            log.truncate()
            say_refusal(error)
            failure = VllmLog().diagnose_launch(log.getvalue() + capsys.readouterr().err, 1, False)
            assert failure.kind is FailureKind.CONFIGURATION, (name, flags, failure)
            is_memory = failure.reason.startswith("the configuration does not fit into memory: ")
            assert is_memory == ("memory" in str(error)), failure
            assert str(error)[:60] in failure.reason
    assert refused > 20


@pytest.mark.parametrize(
    ("flags", "real", "same"),
    [
        ({"gpu_memory_utilization": 1.7}, "memory-fraction-over-one", True),
        ({"max_num_batched_tokens": 16, "max_num_seqs": 64}, "batch-below-sequences", True),
        ({"tensor_parallel_size": 3}, "tensor-parallel", False),  # of another model
        ({"gpu_memory_utilization": 0.15}, "no-kv-cache", True),
        ({"gpu_memory_utilization": 0.32}, "context-beyond-kv-cache", False),
        ({"max_num_seqs": 0}, "no-sequences", False),  # a batch of 0 as well
    ],
)
def test_it_is_diagnosed_as_the_real_one(
    flags: dict[str, Value],
    real: str,
    same: bool,
    log: io.StringIO,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["serve", LLAMA, *words(flags)]
    assert main(argv) == 1
    ours = VllmLog().diagnose_launch(log.getvalue() + capsys.readouterr().err, 1, False).reason
    theirs = VllmLog().diagnose_launch((LOGS / f"{real}.log").read_text(), 1, False).reason
    assert ours.partition(":")[0] == theirs.partition(":")[0]
    if same:
        assert ours == theirs
