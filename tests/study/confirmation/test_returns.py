"""Before a configuration is confirmed, each of its knobs goes back once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from helpers.night_rows import repeat, values
from helpers.records import trial_row
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.knobs.returned import returned
from tuner.configuration import Configuration
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatKind, RepeatRow, TrialRow
from tuner.study.confirmation.members import AIM_FROM, Goal
from tuner.study.confirmation.plan import next_step
from tuner.study.confirmation.returns import (
    KnobReturn,
    Names,
    begun_leader,
    kept_s,
    next_again,
    next_between,
    next_return,
    return_of_most,
    unconfirmed_leader,
)

GOAL = Goal((Slo("p99_tpot_ms", 50.0),), (Objective.parse("energy_per_output_token_j"),), 4)
BASE = Configuration()
FULL = Configuration(flags={"max_num_seqs": 64}, device={"power_limit_w": 400})
DEFAULT = replace(trial_row(0, values(0.4, 20.0), BASE), baseline=True)
BEST = trial_row(1, values(0.25, 35.0), FULL)


def pairs_of_1() -> list[RepeatRow]:
    """Return repeats that show that trial 1 holds, beside the default's."""
    return [
        replace(repeat(2 * n + d, number, values(joule * by, tpot * by)), traffic=n, kind=kind)
        for n, by in enumerate((1.0, 1.02, 0.98, 1.01, 0.97, 1.05, 0.99))
        for d, (number, joule, tpot, kind) in enumerate(
            [(0, 0.4, 20.0, RepeatKind.BASELINE), (1, 0.3, 35.0, RepeatKind.CONFIRMATION)]
        )
    ]


def backwards(_: int, groups: Sequence[Names]) -> Sequence[Names]:
    return sorted(groups)[::-1]


def next_of(trials: Sequence[TrialRow], rows: Sequence[RepeatRow]) -> KnobReturn | None:
    leader = unconfirmed_leader(GOAL, trials, rows)
    return None if leader is None else next_return(leader, trials, backwards)


def test_the_model_gives_the_order_and_what_was_tried_is_not_tried_again() -> None:
    assert next_of([DEFAULT, BEST], []) == KnobReturn(1, ("power_limit_w",))
    worse = trial_row(2, values(0.3, 30.0), returned(FULL, "power_limit_w", BASE))
    assert next_of([DEFAULT, BEST, worse], []) == KnobReturn(1, ("max_num_seqs",))


def test_all_but_the_knob_that_matters_most_go_back_at_once_and_then_one_by_one() -> None:
    full = Configuration(
        flags={"max_num_seqs": 64, "max_num_batched_tokens": 8192}, device={"power_limit_w": 400}
    )
    best = trial_row(1, values(0.25, 35.0), full)
    # the last in the order is expected to matter most
    first = next_of([DEFAULT, best], [])
    assert first == KnobReturn(1, ("power_limit_w", "max_num_seqs"))
    seqs_alone = Configuration(flags={"max_num_batched_tokens": 8192})
    same = trial_row(2, values(0.25, 35.0), seqs_alone)
    assert _first_member([DEFAULT, best, same]).number == 2
    worse = trial_row(2, values(0.35, 35.0), seqs_alone)
    assert next_of([DEFAULT, best, worse], []) == KnobReturn(1, ("power_limit_w",))


KNOBS = ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_size", "swap_space")


@given(st.sets(st.sampled_from(KNOBS), min_size=1), st.permutations(KNOBS))
def test_the_knobs_without_effect_are_found_in_few_trials(
    effective: set[str], by_effect: list[str]
) -> None:
    """A knob that matters, by the model, too, is kept; what does not goes back at once."""
    expected = sorted(by_effect, key=lambda name: name in effective)

    def order(_: int, groups: Sequence[Names]) -> Sequence[Names]:
        return sorted(groups, key=lambda names: max(map(expected.index, names)))

    full = Configuration(flags=dict.fromkeys(KNOBS, 16))
    trials, leader, tried = [DEFAULT, trial_row(1, values(0.2, 35.0), full)], 1, 0
    while (step := next_return(trials[leader], trials, order)) is not None:
        configuration = trials[leader].configuration
        for name in step.names:
            configuration = returned(configuration, name, BASE)
        is_worse = not effective <= set(configuration.knobs())
        found = trial_row(len(trials), values(0.3 if is_worse else 0.2, 35.0), configuration)
        trials.append(found)
        leader, tried = leader if is_worse else found.number, tried + 1
    assert set(trials[leader].configuration.knobs()) == effective
    assert tried <= (1 if len(effective) == 1 else len(KNOBS) + 2)


def test_the_last_repeats_choose_whose_knobs_go_back() -> None:
    """With few repeats left the next is what they can still show, and it has knobs of its own."""
    known = Configuration(flags={"max_num_seqs": 128}, device={"sm_clock_mhz": 1320})
    trials = [DEFAULT, BEST, trial_row(2, values(0.3, 30.0), known)]
    aims = [
        replace(repeat(n, 2, values(0.3 * by, 30.0 * by)), traffic=AIM_FROM + n)
        for n, by in enumerate((1.0, 1.02, 0.98))
    ]
    many, few = (unconfirmed_leader(GOAL, trials, aims, left) for left in (None, 4))
    assert many is not None and many.number == 1
    assert few is not None and few.number == 2
    assert next_return(few, trials, backwards) == KnobReturn(2, ("sm_clock_mhz",))


def test_what_is_no_worse_takes_the_place_and_is_confirmed() -> None:
    equal = trial_row(2, values(0.251, 35.2), returned(FULL, "power_limit_w", BASE))
    trials = [DEFAULT, BEST, equal]
    assert _first_member(trials).number == 2
    # without its last knob it is the default, which was measured
    assert next_of(trials, []) is None


def test_a_member_under_confirmation_stays_as_it_is() -> None:
    rows = [replace(repeat(0, 1, values(0.25, 35.0)), traffic=0)]
    assert next_of([DEFAULT, BEST], rows) is None


def test_what_would_be_recommended_and_was_begun_with_all_its_knobs_returns_them_late() -> None:
    trials, rows = [DEFAULT, BEST], pairs_of_1()
    assert unconfirmed_leader(GOAL, trials, rows) is None
    assert begun_leader(GOAL, trials, []) is None  # nothing holds
    late = begun_leader(GOAL, trials, rows)
    assert late is not None
    assert next_return(late, trials, backwards) == KnobReturn(1, ("power_limit_w",))
    assert begun_leader(GOAL, trials, rows, 5) is None  # nothing else can be confirmed any more


def test_what_is_within_the_noise_is_measured_again_before_the_next_knob() -> None:
    near = trial_row(2, values(0.257, 34.0), returned(FULL, "power_limit_w", BASE))
    assert next_again(GOAL, BEST, [DEFAULT, BEST, near], []) == KnobReturn(1, ())
    second = trial_row(3, values(0.251, 35.0), FULL)
    step = next_again(GOAL, BEST, [DEFAULT, BEST, near, second], [])
    assert step == KnobReturn(1, ("power_limit_w",))
    third = trial_row(4, values(0.246, 34.0), near.configuration)
    assert next_again(GOAL, BEST, [DEFAULT, BEST, near, second, third], []) is None


def test_a_knob_that_cannot_go_back_is_passed_over() -> None:
    def only_seqs(_: int, groups: Sequence[Names]) -> Sequence[Names]:
        return [names for names in groups if names == ("max_num_seqs",)]

    assert next_return(BEST, [DEFAULT, BEST], only_seqs) == KnobReturn(1, ("max_num_seqs",))
    assert next_return(BEST, [DEFAULT, BEST], lambda *_: ()) is None
    assert return_of_most(BEST, [DEFAULT, BEST], lambda *_: ()) is None


def _first_member(trials: list[TrialRow]) -> TrialRow:
    rows = [replace(repeat(0, 0, values(0.4, 20.0)), traffic=0)]
    step = next_step(GOAL, trials, rows)
    assert step is not None
    return step.trial


def test_between_what_holds_and_what_would_save_more_the_best_may_lie() -> None:
    clocks = [Configuration(device={"sm_clock_mhz": mhz}) for mhz in (1440, 1200)]
    holds, may_miss = (
        trial_row(n + 1, values(*found), clock)
        for n, (found, clock) in enumerate(zip([(0.3, 35.0), (0.25, 47.5)], clocks, strict=True))
    )
    trials = [DEFAULT, holds, may_miss]
    assert next_between(GOAL, trials, []) is None  # nothing holds yet
    rows = pairs_of_1()
    assert next_between(GOAL, trials, rows) == (1, 2)
    assert next_between(GOAL, [DEFAULT, holds], rows) is None  # nothing saves more
    surely = trial_row(2, values(0.25, 40.0), clocks[1])
    assert next_between(GOAL, [DEFAULT, holds, surely], rows) is None  # it holds itself


def test_once_something_holds_knobs_of_a_better_one_may_go_back_until_a_verdict_has_no_time() -> (
    None
):
    holds = trial_row(1, values(0.3, 35.0), Configuration(device={"sm_clock_mhz": 1200}))
    trials, hours_s, each_s = [DEFAULT, holds], 10_000.0, 300.0
    assert kept_s(GOAL, trials, [], hours_s, each_s) == 0.6 * hours_s
    assert kept_s(GOAL, trials, pairs_of_1(), hours_s, each_s) == 6 * each_s
    assert kept_s(GOAL, trials, pairs_of_1(), 1_000.0, each_s) == 600.0  # less is reserved
    assert kept_s(GOAL, trials, pairs_of_1(), hours_s, None) == 0.6 * hours_s
