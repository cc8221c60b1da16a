from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from helpers.records import OWNER
from helpers.stored_study import confirm, measurement, repeat

from tuner.analysis.recommendation.recommend import recommend
from tuner.configuration import Configuration
from tuner.errors import NoFeasibleConfigurationError, OperatorNeededError, UsageError
from tuner.records import (
    Failure,
    FailureKind,
    Measurement,
    PowerTimeline,
    RawRun,
    ServerTimeline,
    Source,
)
from tuner.slo import Slo
from tuner.store import Store, StudyIdentity, TrialOwner

Fill = Callable[[Store, StudyIdentity], None]


def test_the_least_energy_that_meets_the_slo_with_the_front_and_the_default(store: Store) -> None:
    found = recommend(store)
    assert found.best.number == 2
    assert [t.number for t in found.alternatives] == [1, 0]
    assert found.baseline is not None
    assert found.baseline.number == 0
    assert found.summary_of(found.best).saving_percent == pytest.approx(37.5)
    assert not found.is_default
    assert found.emulated == ()


def test_another_slo_filters_without_measuring(store: Store) -> None:
    assert recommend(store, slos=[Slo("p99_tpot_ms", 46.0)]).best.number == 1
    assert recommend(store, slos=[Slo("p99_tpot_ms", 100.0)]).best.number == 3
    assert recommend(store, slos=[]).best.number == 3


def test_where_the_default_wins_it_says_so(store: Store) -> None:
    assert recommend(store, slos=[Slo("p99_tpot_ms", 31.0)]).is_default


def test_a_default_whose_repeats_failed_is_still_better_than_what_uses_more(store: Store) -> None:
    """Only a member that uses 50 % more was confirmed; the search saw the default meet the SLO."""
    for _ in range(3):
        repeat(store, 2, 0.60, 48.0)
    assert recommend(store).is_default
    # measured again, the default missed the SLO: then nothing but the member is left
    for _ in range(2):
        repeat(store, 0, 0.40, 55.0)
    found = recommend(store)
    assert found.best.number == 2 and found.confirmed.is_confirmed


def test_nothing_feasible_names_counts_and_the_nearest_miss(store: Store) -> None:
    with pytest.raises(NoFeasibleConfigurationError) as caught:
        recommend(store, slos=[Slo("p99_tpot_ms", 20.0)])
    sentence = str(caught.value)
    assert caught.value.exit_code == 4
    assert "nothing in study 'night' met p99_tpot_ms<=20 (5 trials measured, 2 failed)" in sentence
    assert "nearest: trial 0 with p99_tpot_ms 30 ms, 50 % over 20 ms" in sentence


def test_the_nearest_miss_of_a_lower_bound_is_said_to_be_under(store: Store) -> None:
    with pytest.raises(
        NoFeasibleConfigurationError,
        match=r"trial 1 with output_throughput_tok_s 5,200 tok/s, 48 % under 10,000 tok/s",
    ):
        recommend(store, slos=[Slo("output_throughput_tok_s", 10_000.0)])


def test_a_bound_on_what_nobody_measured_says_so(store: Store) -> None:
    with pytest.raises(NoFeasibleConfigurationError, match="measured all of: p99_itl_ms"):
        recommend(store, slos=[Slo("p99_itl_ms", 1.0)])


def test_a_study_where_everything_failed_says_so(empty: Store, identity: StudyIdentity) -> None:
    empty.create_study(identity)
    owner = TrialOwner(1, "b", "h", "t")
    empty.begin_trial("night", 0, Configuration(), baseline=True, owner=owner)
    empty.save_failure("night", 0, Failure(FailureKind.CONFIGURATION, "oom"))
    with pytest.raises(NoFeasibleConfigurationError, match=r"0 trials measured, 1 failed.*show"):
        recommend(empty)


def test_without_measured_energy_there_is_no_answer(empty: Store, identity: StudyIdentity) -> None:
    empty.create_study(identity)
    owner = TrialOwner(1, "b", "h", "t")
    empty.begin_trial("night", 0, Configuration(), baseline=True, owner=owner)
    found = Measurement({"p99_tpot_ms": 1.0}, 0.0, 1.0, Source.MEASURED, Source.MEASURED)
    empty.save_measurement("night", 0, found, None)
    with pytest.raises(NoFeasibleConfigurationError, match="has a measured energy_per_output"):
        recommend(empty)


def test_of_two_studies_the_right_model_answers(
    store: Store, identity: StudyIdentity, fill: Fill
) -> None:
    fill(store, replace(identity, name="qwen-night", model="Qwen/Qwen3-8B"))
    assert recommend(store, "qwen3-8b").study.name == "qwen-night"
    assert recommend(store, "Llama-3.1-8B").study.name == "night"
    assert recommend(store, "Llama-3.1-8B").other_studies == ()
    with pytest.raises(UsageError, match="it holds: Qwen/Qwen3-8B, meta-llama"):
        recommend(store, "mistral")


def test_a_newer_study_without_an_answer_is_passed_over_and_named(
    store: Store, identity: StudyIdentity, fill: Fill
) -> None:
    strict = replace(
        identity,
        name="strict",
        created_at=identity.created_at + timedelta(days=1),
        slos=("p99_tpot_ms<=1",),
    )
    fill(store, strict)
    found = recommend(store, "Llama-3.1-8B")
    assert found.study.name == "night"
    assert found.other_studies == ("strict",)
    assert any("nothing in study 'strict' met" in warning for warning in found.warnings)
    with pytest.raises(NoFeasibleConfigurationError, match="'strict'"):
        recommend(store, study="strict")


def warnings(store: Store, study: str = "night", **kwargs: list[Slo]) -> str:
    return "; ".join(recommend(store, study=study, **kwargs).warnings)  # type: ignore[arg-type]


def test_warnings_say_what_to_know_and_nothing_else(
    store: Store, identity: StudyIdentity, fill: Fill
) -> None:
    fill(store, replace(identity, name="emu", energy_source=Source.EMULATED))
    assert warnings(store) == (
        "unconfirmed: each figure is of a single window of the search; `tuner resume night` "
        "measures the front again, on other traffic"
    )
    assert "energy is emulated" in warnings(store, "emu")
    store.set_finished("night", None)
    assert "not finished (7 trials ended" in warnings(store)


def test_a_default_that_misses_the_slo_is_said(store: Store) -> None:
    slo = [Slo("output_throughput_tok_s", 5050.0)]
    assert "the default itself does not meet the SLO" in warnings(store, slos=slo)


def test_a_default_at_another_load_and_the_trials_own_warnings_are_said(
    empty: Store, identity: StudyIdentity
) -> None:
    empty.create_study(identity)
    owner = TrialOwner(1, "b", "h", "t")
    metrics = {"energy_per_output_token_j": 0.2, "p99_tpot_ms": 9.0}
    for number, (energy_j, concurrency) in enumerate([(0.4, 8), (0.2, 64)]):
        configuration = Configuration(load={"concurrency": concurrency})
        empty.begin_trial("night", number, configuration, baseline=number == 0, owner=owner)
        found = Measurement(
            metrics | {"energy_per_output_token_j": energy_j},
            0.0,
            1.0,
            Source.MEASURED,
            Source.MEASURED,
        )
        empty.save_measurement("night", number, found, None, warnings=["clock was low"])
    assert "another load" in warnings(empty)
    assert "clock was low" in warnings(empty)


def test_another_trial_can_be_asked_for(store: Store) -> None:
    asked = recommend(store, trial=1)
    assert (asked.best.number, asked.is_asked_for) == (1, True)
    assert [t.number for t in asked.alternatives] == [2, 0]
    missing = "; ".join(recommend(store, trial=3).warnings)
    assert "trial 3 does not meet the SLO (p99_tpot_ms<=50)" in missing
    with pytest.raises(UsageError, match="has no trial 99; see its trials with `tuner show night`"):
        recommend(store, trial=99)
    with pytest.raises(UsageError, match=r"trial 5 .* cannot be deployed: CUDA out of memory"):
        recommend(store, trial=5)


def test_an_slo_that_changes_nothing_is_said(store: Store) -> None:
    assert "the SLO does not bind" in warnings(store, slos=[Slo("p99_tpot_ms", 100.0)])
    assert "does not bind" not in warnings(store, slos=[Slo("p99_tpot_ms", 60.0)])
    confirm(store, (0.27, 48.0))  # trial 3, which was not confirmed, uses less and misses
    assert "does not bind" not in warnings(store)


def test_whether_an_slo_binds_is_told_by_windows_of_the_same_traffic(store: Store) -> None:
    """The recommended may use less on its repeats' traffic than what misses on the search's."""
    confirm(store, (0.15, 48.0))
    assert recommend(store).best.number == 2
    assert "does not bind" not in warnings(store)
    assert "the SLO does not bind" in warnings(store, slos=[Slo("p99_tpot_ms", 100.0)])


def end_early(store: Store, number: int, energy_j: float) -> None:
    found = measurement(energy_j, 70.0, 5000.0, Source.MEASURED)
    ended = replace(found, ended_early="ended early: 30 of 30 requests were past p99_tpot_ms<=50")
    store.save_measurement("night", number, ended, None)


def test_what_was_ended_early_is_told_where_a_looser_slo_asks_for_it(store: Store) -> None:
    end_early(store, 3, 0.24)
    looser = warnings(store, slos=[Slo("p99_tpot_ms", 80.0)])
    assert "1 trial was ended early for missing the study's own SLO (p99_tpot_ms<=50)" in looser
    assert "`tuner run --from-study night --slo 'p99_tpot_ms<=80'` measures again" in looser
    assert "does not bind" not in looser  # what was ended uses less, as far as it went
    assert "ended early" not in warnings(store)
    assert "ended early" not in warnings(store, slos=[Slo("p99_tpot_ms", 49.0)])


def test_nothing_feasible_counts_what_was_ended_early(store: Store) -> None:
    end_early(store, 3, 0.24)
    with pytest.raises(NoFeasibleConfigurationError) as caught:
        recommend(store, slos=[Slo("p99_tpot_ms", 2.0)])
    assert "(4 trials measured, 1 ended early, 2 failed)" in str(caught.value)
    assert "nearest of the whole windows: trial 0 with p99_tpot_ms 30 ms, 15.0 times 2 ms" in str(
        caught.value
    )


def test_a_study_of_which_nothing_has_ended_says_so(empty: Store, identity: StudyIdentity) -> None:
    empty.create_study(identity)
    owner = TrialOwner(1, "b", "h", "t")
    empty.begin_trial("night", 0, Configuration(), baseline=True, owner=owner)
    with pytest.raises(NoFeasibleConfigurationError, match="no trial of study 'night' has ended"):
        recommend(empty)


def run_of_at_most(highest_w: float) -> RawRun:
    nothing = np.array([])
    times_s = np.array([0.0, 1.0, 2.0, 9.0])
    power_w = np.array([690.0, 200.0, highest_w, 690.0])  # what is outside the window is not of it
    return RawRun(
        (),
        PowerTimeline(times_s, power_w, power_w, Source.MEASURED),
        ServerTimeline(nothing, nothing, nothing),
        0.5,
        3.0,
        Source.MEASURED,
    )


@pytest.mark.parametrize(("highest_w", "is_said"), [(300.0, True), (399.0, False)])
def test_a_power_limit_that_never_bound_is_said(
    store: Store, highest_w: float, is_said: bool
) -> None:
    best = recommend(store).best  # with a limit of 400 W
    assert best.measurement is not None
    store.save_measurement("night", best.number, best.measurement, run_of_at_most(highest_w))
    said = "the power limit of 400 W never bound: the highest sample was 300 W" in warnings(store)
    assert said is is_said


def test_the_sum_of_two_gpus_does_not_say_that_a_limit_never_bound(store: Store) -> None:
    """One may be at its limit of 400 W, and the other wait at 100 W."""
    two = Configuration({"tensor_parallel_size": 2}, {}, {"power_limit_w": 400})
    store.begin_trial("night", 7, two, baseline=False, owner=OWNER)
    found = measurement(0.22, 45.0, 5000.0, Source.MEASURED)
    store.save_measurement("night", 7, found, run_of_at_most(500.0))
    assert recommend(store).best.number == 7
    assert "never bound" not in warnings(store)


def test_damaged_raw_records_are_said_and_the_answer_is_still_given(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise OperatorNeededError("raw records are damaged")

    monkeypatch.setattr(store, "raw_run", damaged)
    assert recommend(store).best.number == 2
    assert "raw records are damaged" in warnings(store)


def test_what_a_saving_costs_is_told_in_percent_of_the_default(store: Store) -> None:
    found = recommend(store)
    changes = found.summary_of(found.best).changes_percent
    assert changes["p99_tpot_ms"] == pytest.approx(100.0 * (49.0 / 30.0 - 1.0))
    assert changes["output_throughput_tok_s"] == pytest.approx(2.0)
    assert changes["mean_power_w"] == pytest.approx(100.0 * (0.25 * 5100 / (0.4 * 5000) - 1.0))
    assert set(changes) == {"p99_tpot_ms", "p99_ttft_ms", "output_throughput_tok_s", "mean_power_w"}


def on_stretches_of_which_the_default_alone_had_a_light_one(store: Store) -> None:
    for traffic, weight in enumerate((1.0, 1.1, 0.9, 1.0)):
        repeat(store, 0, 0.40 * weight, 20.0 * weight, traffic=traffic)
        repeat(store, 2, 0.30 * weight, 30.0 * weight, traffic=traffic)
    repeat(store, 0, 0.30, 15.0, traffic=4)


def test_the_default_beside_a_confirmed_trial_is_that_of_the_same_traffic(store: Store) -> None:
    on_stretches_of_which_the_default_alone_had_a_light_one(store)
    found = recommend(store)
    shown = found.summary_of(found.best)
    assert (found.best.number, shown.confirmed) == (2, True)
    assert shown.saving_percent == pytest.approx(25.0)
    assert shown.changes_percent["p99_tpot_ms"] == pytest.approx(50.0)
    theirs_ms, ours_ms = found.default_beside("p99_tpot_ms"), shown.p99_tpot_ms
    assert theirs_ms is not None and ours_ms is not None
    assert ours_ms / theirs_ms == pytest.approx(1.5)
    ours_j = shown.energy_per_output_token_j
    assert ours_j is not None
    assert found.default_beside("energy_per_output_token_j") == pytest.approx(ours_j / 0.75)
    assert found.default_beside("mean_power_w") is not None
    assert found.default_beside("p50_e2el_ms") is None
    assert found.confirmed.is_beside_default(found.best)


def test_the_default_beside_a_trial_of_the_search_has_its_own_windows_once_confirmed(
    store: Store,
) -> None:
    single = recommend(store, trial=1)
    assert single.confirmed.is_beside_default(single.best)
    assert single.default_beside("p99_tpot_ms") == pytest.approx(30.0)
    on_stretches_of_which_the_default_alone_had_a_light_one(store)
    single = recommend(store, trial=1)
    assert not single.confirmed.is_beside_default(single.best)
    assert single.default_beside("p99_tpot_ms") == pytest.approx(18.84, abs=0.01)


def test_the_study_is_paid_back_by_what_is_saved_on_the_same_traffic(store: Store) -> None:
    on_stretches_of_which_the_default_alone_had_a_light_one(store)
    found = replace(recommend(store), night_energy_j=3.6e6)
    ours_j = found.summary_of(found.best).energy_per_output_token_j
    made_per_s = found.summary_of(found.best).output_throughput_tok_s
    assert ours_j is not None and made_per_s is not None
    saved_w = (ours_j / 0.75 - ours_j) * made_per_s
    assert found.pays_after_h == pytest.approx(1000.0 / saved_w)


def test_one_pair_on_unseen_traffic_goes_before_the_searchs_saving_and_is_not_sure(
    store: Store,
) -> None:
    """The search saw 37.5 % less; one window beside the default on other traffic, half of it."""
    repeat(store, 0, 0.40, 30.0, traffic=0)
    repeat(store, 2, 0.325, 48.0, traffic=0)
    found = recommend(store, trial=2)
    shown = found.summary_of(found.best)
    assert shown.saving_percent == pytest.approx(18.75)
    assert (shown.pairs, shown.confirmed, shown.saves_surely) == (1, False, False)
    # trial 1, of which nothing else is known, saves 25 % by the search
    assert recommend(store).best.number == 1


@pytest.mark.parametrize(("fewer_j", "best"), [(0.251, 1), (0.26, 2)])
def test_of_what_cannot_be_told_apart_the_fewest_knobs_are_recommended(
    empty: Store, identity: StudyIdentity, fewer_j: float, best: int
) -> None:
    """Two use as much within one standard error of their pairs, 0.6 % here; 4 % is a difference."""
    empty.create_study(identity)
    flags = {"max_num_seqs": 256}
    both = Configuration(flags=flags, device={"power_limit_w": 400})
    for number, (energy_j, one) in enumerate(
        [(0.4, Configuration()), (0.26, Configuration(flags=flags)), (0.25, both)]
    ):
        empty.begin_trial("night", number, one, baseline=number == 0, owner=OWNER)
        found = measurement(energy_j, 30.0, 5000.0, Source.MEASURED)
        empty.save_measurement("night", number, found, None)
    for traffic, factor in enumerate((1.0, 1.01, 0.99, 1.01, 0.99)):
        repeat(empty, 0, 0.4, 30.0, traffic=traffic)
        repeat(empty, 1, fewer_j * factor, 30.0, traffic=traffic)
        repeat(empty, 2, 0.25 / factor, 30.0, traffic=traffic)
    assert recommend(empty).best.number == best
