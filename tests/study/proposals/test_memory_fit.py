"""What surely does not fit is never launched; what may fit is."""

from __future__ import annotations

import itertools

import optuna
import pytest

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration, Value
from tuner.emulator.launch_rules import resolve
from tuner.emulator.refusal import LaunchRefusedError
from tuner.records import Measurement, Source
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.spec.search_space import SearchSpace
from tuner.study.proposals.memory_fit import fits, fitting
from tuner.study.proposals.proposals import Proposals

QWEN, LLAMA = "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"max_model_len": 4096, "gpu_memory_utilization": 0.5}, False),  # 62 of 80 GB are weights
        ({"max_model_len": 4096, "gpu_memory_utilization": 0.9}, True),
        ({"max_model_len": 40960, "gpu_memory_utilization": 0.85}, False),  # 10 GiB of cache
        ({"max_model_len": 40960, "kv_cache_dtype": "fp8"}, True),
        ({"max_model_len": 40960, "gpu_memory_utilization": 0.5, "tensor_parallel_size": 2}, True),
        ({"gpu_memory_utilization": 0.5}, None),
        ({"max_model_len": 4096, "gpu_memory_utilization": 0.5, "quantization": "fp8"}, None),
    ],
)
def test_weights_and_one_request_have_to_fit(
    flags: dict[str, Value], expected: bool | None
) -> None:
    assert fits(load_model(QWEN), load_gpu("H100-SXM").memory_gib, flags) is expected


def test_nothing_that_starts_on_the_emulator_is_said_not_to_fit() -> None:
    gpu, refused = load_gpu("L40S"), 0
    for name, share, length, kv_type in itertools.product(
        (QWEN, LLAMA), (0.3, 0.4, 0.5, 0.92), (2048, 16384, 32768), ("auto", "fp8")
    ):
        flags = {
            "gpu_memory_utilization": share,
            "max_model_len": length,
            "kv_cache_dtype": kv_type,
        }
        found = fits(load_model(name), gpu.memory_gib, flags)
        try:
            resolve(load_model(name), gpu, flags)
        except LaunchRefusedError:
            refused += found is False
        else:
            assert found is True, flags
    assert refused > 5  # and most of what is refused is known


def test_a_gpu_or_a_model_that_is_not_known_may_fit_anything() -> None:
    small = Configuration({"max_model_len": 4096, "gpu_memory_utilization": 0.1})
    assert not fitting(LLAMA, "2 x NVIDIA L40S", Configuration())(small)
    assert fitting(LLAMA, "NVIDIA T4", Configuration())(small)
    assert fitting("nobody/knows", "NVIDIA L40S", Configuration())(small)


def test_the_search_launches_nothing_that_cannot_fit() -> None:
    space = SearchSpace.model_validate(
        {
            "name": "shares",
            "fixed": {"flags": {"max_model_len": 16384}},
            "flags": {
                "gpu_memory_utilization": {
                    "type": "float",
                    "low": 0.1,
                    "high": 0.9,
                    "step": 0.1,
                    "default": 0.9,
                }
            },
        }
    )
    may_fit = fitting(LLAMA, "NVIDIA L40S", Configuration({"max_model_len": 16384}))
    proposals = Proposals(
        optuna.storages.InMemoryStorage(),
        "s",
        space,
        (Slo.parse("p99_tpot_ms<=40"),),
        (Objective.parse("energy_per_output_token_j"),),
        "gp",
        0,
        may_fit=may_fit,
    )
    proposals.enqueue_baseline({})
    asked = []
    for _ in range(5):
        proposal = proposals.ask()
        asked.append(float(proposal.configuration.flags.get("gpu_memory_utilization", 0.9)))
        metrics = {"energy_per_output_token_j": 1.0 + asked[-1], "p99_tpot_ms": 10.0}
        result = Measurement(metrics, 0.0, 9.0, Source.EMULATED, Source.EMULATED)
        proposals.tell_measured(proposal.number, result)
    assert min(asked) >= 0.4  # 15 GiB of weights and 2 GiB of cache do not fit into 0.3 of 44.5 GiB
    assert len(set(asked)) == 5
