"""Tables, JSON and files show the same numbers; and the tables fit the terminal."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.stored_study import add_night, repeat
from rich.console import Console

from tuner.analysis.confirmed_front import confirmed_front
from tuner.analysis.outcomes import front
from tuner.analysis.recommendation.recommend import recommend
from tuner.measurement.racing.sentence import Lost, lost_sentence
from tuner.records import Source
from tuner.report.frames import trial_rows, write_csv
from tuner.report.json_forms import front_json, recommendation_json, studies_json, study_json
from tuner.report.labels import number, percent
from tuner.report.terminal.front_table import show_front
from tuner.report.terminal.recommendation_table import show_recommendation
from tuner.report.terminal.study_tables import show_studies, show_study
from tuner.slo import Slo
from tuner.store import Store, StudyIdentity

SHOWN = (
    "energy_per_output_token_j",
    "p99_tpot_ms",
    "p99_ttft_ms",
    "output_throughput_tok_s",
    "mean_power_w",
)


def printer(width: int = 120) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines_of(trial: int, output: str) -> list[str]:
    return [line for line in output.splitlines() if line.split()[:1] == [str(trial)]]


def test_every_number_is_the_same_in_table_json_and_export(
    store: Store, identity: StudyIdentity, tmp_path: Path
) -> None:
    trials = store.trials("night")
    console = printer()
    show_front(console, confirmed_front(identity, trials, []))
    as_json = json.loads(
        json.dumps(front_json(confirmed_front(identity, trials, [])), allow_nan=False)
    )
    recommended = json.loads(json.dumps(recommendation_json(recommend(store)), allow_nan=False))
    whole = json.loads(json.dumps(study_json(identity, trials, [], []), allow_nan=False))
    write_csv(trial_rows(identity, trials, []), tmp_path / "night.csv")
    with (tmp_path / "night.csv").open(newline="") as file:
        exported = {int(row["number"]): row for row in csv.DictReader(file)}

    assert [t["number"] for t in as_json["front"]] == [2, 1, 0]
    assert [recommended["recommended"], *recommended["alternatives"]] == as_json["front"]
    assert recommended["default"] == as_json["default"]
    assert {n for n, row in exported.items() if row["on_front"] == "True"} == {0, 1, 2}
    for shown in as_json["front"]:
        (line,) = lines_of(shown["number"], text(console))
        stored = trials[shown["number"]].measurement
        assert stored is not None
        for name in SHOWN:
            assert shown[name] == stored.metrics[name] == shown["metrics"][name]
            assert float(exported[shown["number"]][name]) == stored.metrics[name]
            assert number(stored.metrics[name]) in line.split()
        assert percent(shown["saving_percent"]) in line
        in_whole = whole["trials"][shown["number"]]
        assert {k: in_whole[k] for k in shown} == shown


def test_the_default_is_always_shown_and_marked(store: Store, identity: StudyIdentity) -> None:
    console = printer()
    show_front(
        console,
        confirmed_front(
            identity, store.trials("night"), [], [Slo("output_throughput_tok_s", 5050.0)]
        ),
    )
    (line,) = lines_of(0, text(console))
    assert line.split()[1] == "default"
    assert line.split()[-1] == "no"
    assert "vLLM's default does not meet the SLO." in text(console)


def test_a_baseline_of_ones_own_is_called_so(store: Store, identity: StudyIdentity) -> None:
    asked = {**identity.spec_json, "baseline": {"flags": {"max_num_seqs": 64}}}
    console, own = printer(), replace(identity, spec_json=asked)
    show_front(console, confirmed_front(own, store.trials("night"), [], []))
    (line,) = lines_of(0, text(console))
    assert line.split()[1] == "baseline"


def test_an_empty_front_says_so_and_still_shows_the_default(
    store: Store, identity: StudyIdentity
) -> None:
    console = printer(80)
    show_front(
        console, confirmed_front(identity, store.trials("night"), [], [Slo("p99_tpot_ms", 1.0)])
    )
    assert "No measured configuration meets the SLO." in text(console)
    assert lines_of(0, text(console))


def test_a_study_without_a_default_says_so(store: Store, identity: StudyIdentity) -> None:
    console = printer()
    show_front(console, confirmed_front(identity, store.trials("night")[1:], []))
    assert "default was not run" in text(console)


@pytest.mark.parametrize("kind", ["energy", "latency"])
def test_what_is_emulated_is_labelled_wherever_it_is_shown(
    empty: Store, identity: StudyIdentity, kind: str
) -> None:
    emulated = replace(identity, **{f"{kind}_source": Source.EMULATED})  # type: ignore[arg-type]
    add_night(empty, emulated)
    trials = empty.trials("night")
    for show in (
        lambda c: show_front(c, confirmed_front(emulated, trials, [])),
        lambda c: show_recommendation(c, recommend(empty)),
        lambda c: show_study(c, emulated, trials, [], []),
        lambda c: show_studies(c, empty.studies()),
    ):
        console = printer()
        show(console)
        assert "emulated" in text(console)
        assert kind in text(console)
    assert kind in front_json(confirmed_front(emulated, trials, []))["emulated"]
    assert kind in recommendation_json(recommend(empty))["emulated"]
    assert studies_json(empty.studies())[0][f"{kind}_source"] == "emulated"


def test_what_is_measured_is_not_labelled(store: Store, identity: StudyIdentity) -> None:
    console = printer()
    show_front(console, confirmed_front(identity, store.trials("night"), []))
    show_recommendation(console, recommend(store))
    assert "emulated" not in text(console)


@pytest.mark.parametrize("width", [80, 120])
def test_everything_fits_and_nothing_is_cut(
    store: Store, identity: StudyIdentity, width: int
) -> None:
    console = printer(width)
    trials = store.trials("night")
    show_front(console, confirmed_front(identity, trials, []))
    show_recommendation(console, recommend(store))
    show_study(console, identity, trials, [], store.events("night"))
    show_studies(console, store.studies())
    output = text(console)
    assert max(map(len, output.splitlines())) <= width
    assert "\u2026" not in output
    for t in front(identity, trials):
        for value in t.configuration.knobs().values():
            assert str(value) in output


def test_reasons_with_brackets_are_shown_as_they_are(store: Store, identity: StudyIdentity) -> None:
    console = printer()
    show_study(console, identity, store.trials("night"), [], store.events("night"))
    assert "CUDA out of memory [rank 0]" in text(console)
    assert "trial 5 [rank 0] died" in text(console)
    assert "/logs/5.log" in text(console)


def test_what_was_said_of_many_trials_is_told_once(store: Store, identity: StudyIdentity) -> None:
    for trial in store.trials("night")[1:5]:
        assert trial.measurement is not None
        wide = f"interval wider than the target: energy {trial.number} %"
        said = [wide] if trial.number == 3 else [wide, "the clock was low: 900 MHz"]
        store.save_measurement("night", trial.number, trial.measurement, None, warnings=said)
    console = printer()
    show_study(console, identity, store.trials("night"), [], [])
    assert "warning: trials 1-4: interval wider than the target\n" in text(console)
    assert "warning: trials 1-2, 4: the clock was low: 900 MHz\n" in text(console)


def test_what_was_ended_early_missed_the_slo(store: Store, identity: StudyIdentity) -> None:
    found = store.trials("night")[3].measurement
    assert found is not None
    ended = replace(found, ended_early="ended early: 30 of 30 requests were past p99_tpot_ms<=50")
    store.save_measurement("night", 3, ended, None)
    console = printer()
    show_study(console, identity, store.trials("night"), [], [])
    (line,) = lines_of(3, text(console))
    assert line.split()[1:4] == ["0.2*", "61*", "missed"]
    assert "ended early: 30 of 30" in text(console)
    assert "* ended early: of a part of the window, not comparable" in text(console)


def test_what_lost_a_race_is_ended_early_and_missed_nothing(
    store: Store, identity: StudyIdentity
) -> None:
    found = store.trials("night")[1].measurement
    assert found is not None
    lost = lost_sentence("is no better than", Lost(2, {"energy_per_output_token_j": 0.1}), 51.0)
    console = printer()
    show_study(console, identity, store.trials("night"), [], [])
    assert "not comparable" not in text(console)
    store.save_measurement("night", 1, replace(found, ended_early=lost), None)
    console = printer()
    show_study(console, identity, store.trials("night"), [], [])
    (line,) = lines_of(1, text(console))
    assert line.split()[1:5] == ["0.3*", "45*", "ended", "early"]
    assert "not comparable" in text(console)


def test_no_study_says_how_to_start_one() -> None:
    console = printer()
    show_studies(console, [])
    assert "tuner run" in text(console)


def test_where_the_default_wins_the_table_says_so(store: Store) -> None:
    console = printer()
    show_recommendation(console, recommend(store, slos=[Slo("p99_tpot_ms", 31.0)]))
    assert "keep vLLM's default: it uses the least energy" in text(console)


def test_a_saving_that_two_rows_do_not_give_is_explained(store: Store) -> None:
    note = "savings are beside the default on the same traffic"
    console = printer()
    show_front(console, recommend(store).confirmed)
    assert note not in text(console)
    for traffic in range(3):
        repeat(store, 0, 0.40, 30.0, traffic=traffic)
        repeat(store, 2, 0.30, 45.0, traffic=traffic)
    console = printer()
    show_front(console, recommend(store).confirmed)
    assert note not in text(console)
    repeat(store, 0, 0.20, 15.0, traffic=3)
    console = printer()
    show_front(console, recommend(store).confirmed)
    assert note in text(console)
