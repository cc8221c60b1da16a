"""What is shown of a study whose front was measured again: confirmed, tied, dropped, unsure."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from helpers import night_rows
from helpers.night_rows import values
from helpers.records import IDENTITY, OWNER, measured, trial_row
from helpers.stored_study import SAME, confirm, measurement, repeat
from rich.console import Console

from tuner.analysis.confirmed_front import confirmation_notes, confirmed_front
from tuner.analysis.recommendation.recommend import recommend
from tuner.configuration import Configuration
from tuner.pictures import PictureChange
from tuner.records import Failure, FailureKind, Source, Timing
from tuner.report.exports.deployment import deployment
from tuner.report.exports.vllm import vllm_config
from tuner.report.frames import repeat_rows, trial_rows
from tuner.report.json_forms import front_json, recommendation_json, studies_json, study_json
from tuner.report.terminal.front_table import show_front
from tuner.report.terminal.recommendation_table import show_recommendation
from tuner.report.terminal.study_tables import show_studies, show_study
from tuner.slo import Slo
from tuner.store import Answers, RepeatKind, RepeatRow, Store, StudyIdentity

OTHER: Answers = tuple((n, n + 1, n + 2 if n > 30 else 0) for n in range(64))


def shown(store: Store, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_recommendation(console, recommend(store))
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_only_confirmed_members_are_on_the_front_with_their_own_figures(
    store: Store, identity: StudyIdentity
) -> None:
    confirm(store, (0.27, 48.0), SAME)
    found = recommend(store)
    assert found.best.number == 2 and [t.number for t in found.alternatives] == [0]
    output = shown(store)
    assert "confirmed by 2 measurements beyond the search's own" in output
    assert "95 % interval of the saving" in output
    assert "same outputs: 100 % (default with itself: 100 %)" in output
    assert "not confirmed, so not shown: trial 1" in output
    as_json = recommendation_json(found)
    best = as_json["recommended"]
    assert as_json["confirmed"] is True and best["confirmed"] is True and best["repeats"] == 2
    assert best["energy_per_output_token_j"] == pytest.approx(0.2705, rel=1e-3)
    low, high = best["saving_interval_percent"]
    assert low < best["saving_percent"] < high
    assert best["tied_with_default"] is False
    assert f"{best['saving_percent']:.1f} % less energy" in output
    trials, repeats = store.trials("night"), store.repeats.of("night")
    whole = study_json(identity, trials, repeats, [])
    assert json.dumps(whole, allow_nan=False)
    assert len(whole["repeats"]) == 6
    assert whole["trials"][2]["search_metrics"]["energy_per_output_token_j"] == 0.25
    assert front_json(confirmed_front(identity, trials, repeats))["front"][0] == best
    rows = {row["number"]: row for row in trial_rows(identity, trials, repeats)}
    assert (rows[2]["confirmed"], rows[1]["confirmed"], rows[1]["on_front"]) == (True, False, False)
    assert rows[2]["energy_per_output_token_j"] == best["energy_per_output_token_j"]
    assert (rows[2]["search.energy_per_output_token_j"], rows[2]["repeats"]) == (0.25, 2)
    assert [r["kind"] for r in repeat_rows("night", repeats)].count("baseline") == 3
    assert "confirmed by 2 measurements" in vllm_config(deployment(found))


def test_a_default_that_misses_the_slo_when_repeated_is_shown_by_its_repeats() -> None:
    default = trial_row(0, values(0.40, 49.9))
    other = trial_row(1, values(0.45, 40.0), Configuration(flags={"max_num_seqs": 8}))
    results = [(0, 0.42, 52.0), (1, 0.46, 40.2), (0, 0.43, 53.0), (1, 0.45, 40.1), (0, 0.41, 54.0)]
    repeats = [night_rows.repeat(i, of, values(j, ms)) for i, (of, j, ms) in enumerate(results)]
    found = confirmed_front(IDENTITY, [default, other], repeats, [Slo("p99_tpot_ms", 50.0)])
    assert found.default_missed and found.baseline is not None
    row = found.summary(found.baseline)
    assert row.meets_slo is False and row.confirmed and row.repeats == 3
    assert row.p99_tpot_ms == pytest.approx(53.0, abs=0.1)
    assert row.energy_per_output_token_j == pytest.approx(0.42, abs=0.001)
    console = Console(file=io.StringIO(), width=160, color_system=None)
    show_front(console, found)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    (line,) = [one for one in lines if one.startswith(" 0 default")]
    assert line.split()[-2:] == ["no", "3"]
    assert "vLLM's default does not meet the SLO." in lines


def test_the_warnings_of_a_confirmed_trial_are_those_of_its_repeats(store: Store) -> None:
    searched = store.trials("night")[2].measurement
    assert searched is not None
    store.save_measurement("night", 2, searched, None, warnings=["the load had not settled"])
    assert "the load had not settled" in recommend(store).warnings
    confirm(store, (0.27, 48.0))
    number = store.repeats.begin("night", 2, RepeatKind.CONFIRMATION, OWNER)
    again = measurement(0.27, 48.0, 5000.0, Source.MEASURED)
    store.repeats.save(
        "night", number, again, None, timing=Timing(1.0, None), warnings=["the client was late"]
    )
    found = recommend(store).warnings
    assert "the load had not settled" not in found
    assert found.count("the client was late") == 1


def test_without_repeats_it_is_unconfirmed_and_says_how_to_confirm(store: Store) -> None:
    output = shown(store)
    assert "unconfirmed" in output and "`tuner resume night`" in output
    assert "confirmed by" not in output
    assert "unconfirmed: each figure is of a single window" in vllm_config(
        deployment(recommend(store))
    )


def test_a_study_told_not_to_confirm_names_the_option(
    store: Store, identity: StudyIdentity
) -> None:
    told = replace(identity, spec_json={"confirm": False})
    (note,) = confirmation_notes(confirmed_front(told, store.trials("night"), []))
    assert "`tuner resume night --confirm` measures the front again" in note


def test_a_tie_is_said(store: Store) -> None:
    for factor in (1.0, 1.03, 0.99):
        repeat(store, 0, 0.40 * factor, 30.0)
        repeat(store, 2, 0.398 / factor, 29.0)
    assert recommend(store).best.number == 2
    assert "tied with vLLM's default" in shown(store)
    assert recommendation_json(recommend(store))["recommended"]["tied_with_default"] is True


def test_a_member_over_the_slo_is_dropped_and_said(store: Store, identity: StudyIdentity) -> None:
    confirm(store, (0.25, 52.0))
    repeat(store, 1, 0.311, 45.2)
    found = recommend(store)
    assert found.best.number == 1
    assert "trial 2 is off the front: measured again, it missed the SLO" in shown(store)
    as_json = front_json(
        confirmed_front(identity, store.trials("night"), store.repeats.of("night"))
    )
    assert as_json["dropped"] == [2]


def test_one_that_crashed_again_is_dropped_with_its_reason(store: Store) -> None:
    number = store.repeats.begin("night", 2, RepeatKind.CONFIRMATION, OWNER)
    oom = Failure(FailureKind.CONFIGURATION, "CUDA out of memory")
    store.repeats.save("night", number, oom, None, timing=Timing(9.0, 9.0))
    assert recommend(store).best.number == 1
    assert "measured again, it failed (CUDA out of memory)" in shown(store)


def test_one_that_may_miss_the_slo_comes_after_one_that_does_not(store: Store) -> None:
    confirm(store, (0.25, 49.7))
    repeat(store, 1, 0.311, 45.2)
    found = recommend(store)
    assert found.best.number == 1  # more energy than trial 2, and sure
    output = shown(store)
    assert "unsure whether the SLO is met in 95 of 100 windows on other traffic: trial 2" in output
    assert "the SLO does not bind" not in output
    assert " unsure " in output


def test_another_slo_uses_the_same_repeats(store: Store) -> None:
    confirm(store, (0.27, 48.0))
    assert recommend(store, slos=[Slo("p99_tpot_ms", 40.0)]).best.number == 0


def test_a_change_of_what_the_model_says_is_warned_of(store: Store) -> None:
    confirm(store, (0.25, 48.0), OTHER)
    output = shown(store)
    assert "same outputs: 52 % (default with itself: 100 %)" in output
    assert "trial 2 changes what the model says" in output


def test_outputs_of_the_virtual_emulator_are_not_compared(
    store: Store, identity: StudyIdentity
) -> None:
    confirm(store, (0.27, 48.0))
    virtual = replace(identity, evaluation="virtual")
    found = confirmed_front(virtual, store.trials("night"), store.repeats.of("night"))
    assert found.outputs(found.trials[2]) == "emulated: outputs not compared"


@pytest.mark.parametrize("width", [80, 120])
def test_repeats_are_listed_and_everything_fits(
    store: Store, identity: StudyIdentity, width: int
) -> None:
    confirm(store, (0.27, 48.0), SAME)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    trials, repeats = store.trials("night"), store.repeats.of("night")
    show_study(console, identity, trials, repeats, [])
    show_front(console, confirmed_front(identity, trials, repeats))
    show_recommendation(console, recommend(store))
    show_studies(console, store.studies())
    assert isinstance(console.file, io.StringIO)
    output = console.file.getvalue()
    assert max(map(len, output.splitlines())) <= width
    assert "\u2026" not in output
    assert "confirmation" in output and "Confirmed Pareto front" in output
    assert "finished," in output and "unconfirmed" not in output
    assert studies_json(store.studies())[0]["confirmation_repeats"] == 3


def test_the_requests_behind_the_percentiles_are_those_of_all_repeats(
    empty: Store, identity: StudyIdentity
) -> None:
    empty.create_study(identity)
    metrics = {"energy_per_output_token_j": 0.3, "p99_tpot_ms": 20.0}
    for number, (seqs, rate) in enumerate(((None, 2.0), (64, 3.0))):
        flags = {} if seqs is None else {"max_num_seqs": seqs}
        configuration = Configuration(flags=flags)
        empty.begin_trial("night", number, configuration, baseline=number == 0, owner=OWNER)
        own = {"energy_per_output_token_j": 0.3 - 0.1 * number, "request_throughput_req_s": rate}
        found = measured({**metrics, **own}, window_s=(10.0, 70.0))
        empty.save_measurement("night", number, found, None)
    for window_s in ((10.0, 110.0), (10.0, 210.0)):
        number = empty.repeats.begin("night", 1, RepeatKind.CONFIRMATION, OWNER)
        own = {"energy_per_output_token_j": 0.2, "request_throughput_req_s": 3.0}
        found = measured({**metrics, **own}, window_s=window_s)
        empty.repeats.save("night", number, found, None, timing=Timing(1.0))
    front = confirmed_front(identity, empty.trials("night"), empty.repeats.of("night"))
    assert front.requests == {0: 120, 1: 900}
    assert front_json(front)["front"][0]["requests"] in (120, 900)
    assert "latencies of 900 requests" in shown(empty)


def test_what_may_miss_the_slo_takes_nothing_off_the_front_that_does_not() -> None:
    trials = [
        trial_row(0, values(0.4, 20.0), Configuration()),
        trial_row(1, values(0.3, 30.0), Configuration(flags={"max_num_seqs": 64})),
        trial_row(2, values(0.29, 29.0), Configuration(flags={"max_num_seqs": 32})),
    ]
    measured_on = [(0, 0.4, 20.0, 4), (1, 0.3, 30.0, 4), (2, 0.29, 29.0, 2)]  # two are too few
    rows = [
        replace(
            night_rows.repeat(10 * trial + n, trial, values(energy_j, tpot_ms * (1 + 0.01 * n))),
            traffic=n,
        )
        for trial, energy_j, tpot_ms, windows in measured_on
        for n in range(windows)
    ]
    found = confirmed_front(IDENTITY, trials, rows)
    assert [t.number for t in found.front] == [2, 1, 0]


def test_one_that_changes_the_pictures_is_dropped_with_how_much() -> None:
    trials = [
        trial_row(0, values(0.4, 20.0), Configuration()),
        trial_row(1, values(0.3, 20.0), Configuration(flags={"cache_backend": "tea_cache"})),
    ]

    def seen(number: int, of: int, ssim: float) -> RepeatRow:
        made = (PictureChange("a boat", 1, 18.0, ssim, 1, b"", b""),)
        row = night_rows.repeat(number, of, values(0.4 - 0.1 * of, 20.0))
        return replace(row, pictures=made, traffic=number // 2)

    rows = [seen(number, number % 2, 0.9 if number % 2 == 0 else 0.5) for number in range(4)]
    asked = replace(IDENTITY, spec_json={**IDENTITY.spec_json, "picture_drop": 0.3})
    (note,) = [n for n in confirmation_notes(confirmed_front(asked, trials, rows)) if "off" in n]
    assert note.startswith("trial 1 is off the front: it changes the pictures too much: 1 picture ")
    assert "mean SSIM 0.500 (the default's own on another launch 0.900)" in note
