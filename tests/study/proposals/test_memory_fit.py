"""What surely does not fit is never launched; what may fit is."""

from __future__ import annotations

import optuna

from tuner.configuration import Configuration
from tuner.records import Measurement, Source
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.spec.search_space import SearchSpace
from tuner.study.proposals.memory_fit import fitting
from tuner.study.proposals.proposals import Proposals

QWEN, LLAMA = "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-8B-Instruct"


def test_a_gpu_or_a_model_that_is_not_known_may_fit_anything() -> None:
    small = Configuration({"max_model_len": 4096, "gpu_memory_utilization": 0.1})
    assert not fitting(LLAMA, "2 x NVIDIA L40S")(small)
    assert fitting(LLAMA, "NVIDIA T4")(small)
    assert fitting("nobody/knows", "NVIDIA L40S")(small)


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
    proposals = Proposals(
        optuna.storages.InMemoryStorage(),
        "s",
        space,
        (Slo.parse("p99_tpot_ms<=40"),),
        (Objective.parse("energy_per_output_token_j"),),
        "gp",
        0,
        may_fit=fitting(LLAMA, "NVIDIA L40S"),
        fixed=Configuration(space.fixed.flags),
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
