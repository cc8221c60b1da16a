"""Every sampler keeps the relations, and asks a broken option no more than twice."""

from pathlib import Path

import optuna
import pytest
from helpers.records import measured

from tuner.configuration import Configuration
from tuner.spec.objective import Objective
from tuner.spec.search_space import SearchSpace, load_space
from tuner.spec.study import SamplerName
from tuner.study.proposals.proposals import Proposals

OBJECTIVES = (
    Objective.parse("energy_per_output_token_j"),
    Objective.parse("p99_tpot_ms"),
)
SAMPLERS: tuple[SamplerName, ...] = ("gp", "tpe", "random")
# 3 of 64 grid points in the sizes are possible with 2 GPUs; with the depth it is 5 % of all
NARROW = """
name: narrow
flags:
  max_num_seqs: {type: power_of_two, low: 8, high: 1024}
  tensor_parallel_size: {type: power_of_two, low: 1, high: 128}
  pipeline_parallel_size: {type: power_of_two, low: 1, high: 128}
  speculative_config:
    type: variants
    variants:
      none: {}
      ngram: {method: ngram, num_speculative_tokens: {type: int, low: 1, high: 8}}
relations:
  - tensor_parallel_size * pipeline_parallel_size <= gpus
"""


def narrow(tmp_path: Path) -> SearchSpace:
    path = tmp_path / "narrow.yaml"
    path.write_text(NARROW)
    return load_space(str(path))


def proposals(space: SearchSpace, sampler: SamplerName, gpus: int) -> Proposals:
    storage = optuna.storages.InMemoryStorage()
    return Proposals(storage, "s", space, (), OBJECTIVES, sampler, 1, gpus=gpus)


def energy_j(configuration: Configuration) -> float:
    flags = configuration.flags
    depth = int(flags.get("speculative_config.num_speculative_tokens", 0))
    gpus = int(flags.get("tensor_parallel_size", 1)) * int(flags.get("pipeline_parallel_size", 1))
    return 1.0 + 0.2 * gpus + 0.05 * abs(depth - 3) + 8.0 / int(flags.get("max_num_seqs", 256))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_where_five_percent_is_possible_nothing_else_is_asked_for(
    tmp_path: Path, sampler: SamplerName
) -> None:
    space = narrow(tmp_path)
    asked = proposals(space, sampler, gpus=2)
    defaults = {"max_num_seqs": 256, "tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    asked.enqueue_baseline(defaults)
    impossible, seen = 0, set()
    for _ in range(30):
        proposal = asked.ask()
        flags = proposal.configuration.flags
        sizes = [int(flags.get(f"{kind}_parallel_size", 1)) for kind in ("tensor", "pipeline")]
        impossible += sizes[0] * sizes[1] > 2
        seen.add(tuple(flags.items()))
        value = energy_j(proposal.configuration)
        metrics = {"energy_per_output_token_j": value, "p99_tpot_ms": 3.0 / value}
        asked.tell_measured(proposal.number, measured(metrics))
    assert impossible == 0
    assert len(seen) > 15


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gpus_are_counted_with_the_fixed_sizes(sampler: SamplerName) -> None:
    """Two GPUs for each of four copies are eight, and the study has four."""
    space = SearchSpace.model_validate(
        {
            "name": "copies",
            "fixed": {"flags": {"tensor_parallel_size": 2, "max_num_batched_tokens": 512}},
            "flags": {
                "data_parallel_size": {"type": "choice", "choices": [1, 2, 4], "default": 1},
                "max_num_seqs": {"type": "power_of_two", "low": 256, "high": 1024},
            },
        }
    )
    asked = Proposals(
        optuna.storages.InMemoryStorage(),
        "s",
        space,
        (),
        OBJECTIVES,
        sampler,
        1,
        gpus=4,
        fixed=Configuration(space.fixed.flags),
    )
    asked.enqueue_baseline({"max_num_seqs": 256})
    for _ in range(12):
        proposal = asked.ask()
        flags = proposal.configuration.flags
        assert int(flags.get("data_parallel_size", 1)) <= 2
        assert int(flags.get("max_num_seqs", 256)) <= 512  # or vLLM does not start
        metrics = {"energy_per_output_token_j": 1.0 + proposal.number, "p99_tpot_ms": 3.0}
        asked.tell_measured(proposal.number, measured(metrics))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_missing_module_is_launched_twice_at_most(tmp_path: Path, sampler: SamplerName) -> None:
    asked = proposals(load_space("default+precision"), sampler, gpus=1)
    asked.enqueue_baseline(
        {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.92}
    )
    launches = 0
    for number in range(24):
        proposal = asked.ask()
        if proposal.configuration.flags.get("quantization") == "fp8":
            launches += 1
            reason = f"vLLM refused to start: No module named 'kernels' (pid {number})"
            asked.tell_infeasible(proposal.number, reason)
        else:
            value = energy_j(proposal.configuration)
            metrics = {"energy_per_output_token_j": value, "p99_tpot_ms": 3.0 / value}
            asked.tell_measured(proposal.number, measured(metrics))
    assert launches <= 2


def test_a_queued_point_that_is_known_to_fail_is_passed_over() -> None:
    space = load_space("default+precision")
    asked = proposals(space, "random", gpus=1)
    defaults = {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.92}
    asked.enqueue_baseline(defaults)
    base = space.baseline_parameters(defaults)
    for exponent in range(3, 7):
        asked.enqueue({**base, "log2_max_num_seqs": exponent, "quantization": "fp8"})
    metrics = {"energy_per_output_token_j": 1.0, "p99_tpot_ms": 3.0}
    asked.tell_measured(asked.ask().number, measured(metrics))
    for _ in range(2):
        asked.tell_infeasible(asked.ask().number, "no module")
    assert "quantization" not in asked.ask().configuration.flags


def test_an_unstable_option_needs_no_second_try_once_it_failed_twice() -> None:
    space = load_space("default+precision")
    asked = proposals(space, "random", gpus=1)
    defaults = {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.92}
    asked.enqueue_baseline(defaults)
    metrics = {"energy_per_output_token_j": 1.0, "p99_tpot_ms": 3.0}
    asked.tell_measured(asked.ask().number, measured(metrics))
    base = space.baseline_parameters(defaults)
    for exponent in (3, 4):
        asked.enqueue({**base, "log2_max_num_seqs": exponent, "quantization": "fp8"})
    first = asked.ask()
    assert not asked.is_known_to_fail(first.number, "segfault at 0x12")
    asked.retry(first.number, attempt=2, unstable="segfault at 0x12")
    second = asked.ask()
    assert asked.is_known_to_fail(second.number, "segfault at 0x77")


def test_an_option_that_is_too_slow_for_the_load_is_not_blamed() -> None:
    space = load_space("default+precision")
    asked = proposals(space, "random", gpus=1)
    defaults = {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.92}
    asked.enqueue_baseline(defaults)
    base = space.baseline_parameters(defaults)
    for exponent in range(3, 7):
        asked.enqueue({**base, "log2_max_num_seqs": exponent, "quantization": "fp8"})
    for _ in range(4):
        reason = "it does not keep up with the offered load"
        asked.tell_infeasible(asked.ask().number, reason, crashed=False)
    assert asked.ask().configuration.flags["quantization"] == "fp8"
