"""A value between two trials' is on the knob's own grid, and is tried once."""

from __future__ import annotations

import optuna
import pytest
from helpers.scripted import SPACE, measurement
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.configuration import Configuration
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.study.proposals.knob_returns import RETURNED, parameters_between, parameters_beyond
from tuner.study.proposals.proposals import Proposals

GRID = {"clock": IntDistribution(780, 1980, step=60), "share": FloatDistribution(0.0, 1.0)}


def ended(clock: int, share: float = 0.5, back: tuple[str, ...] = ()) -> FrozenTrial:
    return optuna.trial.create_trial(
        params={"clock": clock, "share": share},
        distributions=GRID,
        value=0.0,
        state=TrialState.COMPLETE,
        user_attrs={RETURNED: list(back)},
    )


@pytest.mark.parametrize(
    ("one", "other", "between"), [(1440, 1200, 1320), (1260, 1440, 1320), (1320, 1260, None)]
)
def test_it_is_half_way_on_the_grid(one: int, other: int, between: int | None) -> None:
    trials = [ended(one), ended(other)]
    found = parameters_between(*trials, trials)
    assert found == (None if between is None else {"clock": between, "share": 0.5})


def test_only_what_differs_in_one_knob_has_a_middle_and_only_once() -> None:
    holds, may_miss = ended(1440), ended(1200)
    assert parameters_between(holds, ended(1200, share=0.6), []) is None
    assert parameters_between(holds, ended(1200, back=("share",)), []) is None
    assert parameters_between(holds, ended(1440, share=0.6), []) is None  # no grid
    assert parameters_between(holds, may_miss, [ended(1320)]) is None
    assert parameters_between(holds, may_miss, [ended(1320, back=("share",))]) is not None


@pytest.mark.parametrize(("clock", "further"), [(1440, [1320, 1560]), (780, [900]), (1920, [1800])])
def test_a_step_further_is_a_tenth_of_the_range_and_within_it(
    clock: int, further: list[int]
) -> None:
    found = parameters_beyond(ended(clock))
    assert found == [({"clock": mhz, "share": 0.5}, "clock") for mhz in further]  # share: no grid


def test_a_step_of_few_values_is_one_value() -> None:
    seqs = optuna.trial.create_trial(
        params={"log2_seqs": 9}, distributions={"log2_seqs": IntDistribution(3, 9)}, value=0.0
    )
    assert parameters_beyond(seqs) == [({"log2_seqs": 8}, "log2_seqs")]


def test_what_is_measured_again_is_one_more_window_of_the_same_configuration() -> None:
    asked = Proposals(
        optuna.storages.InMemoryStorage(),
        "s",
        SPACE,
        (Slo("p99_tpot_ms", 60.0),),
        (Objective.parse("energy_per_output_token_j"),),
        "gp",
        0,
    )
    asked.enqueue_baseline({})
    found = measurement(energy_per_output_token_j=0.3, p99_tpot_ms=30.0)
    for number in range(2):
        asked.tell_measured(asked.ask().number, found)
        assert number == asked.complete_count - 1
    for _ in range(2):
        asked.returns.enqueue(1, ())
        asked.returns.enqueue(1, ())  # it waits already
        again = asked.ask()
        assert again.configuration == asked.proposal(1).configuration
        asked.tell_measured(again.number, found)
    assert (asked.returns.count, asked.complete_count) == (1, 4)
    asked.returns.enqueue(1, ("gpu_memory_utilization",))
    seqs = asked.proposal(1).configuration.flags["max_num_seqs"]
    assert asked.ask().configuration == Configuration(flags={"max_num_seqs": seqs})
    assert asked.returns.count == 2
