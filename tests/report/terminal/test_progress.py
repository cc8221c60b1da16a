from __future__ import annotations

import io
from dataclasses import replace

import pytest
from helpers.stored_study import FAILURE, configuration, measurement
from rich.console import Console

from tuner.measurement.racing.sentence import Lost, lost_sentence
from tuner.records import LoadSnapshot, Measurement, Source
from tuner.report.labels import EARLY_NOTE
from tuner.report.snapshot_text import snapshot_text
from tuner.report.terminal.progress import RunDisplay
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatKind, Store
from tuner.study.confirmation.plan import Step
from tuner.study.listener import Progress
from tuner.study.proposals.proposals import Proposal

OBJECTIVES = (Objective.parse("energy_per_output_token_j"), Objective.parse("p99_tpot_ms"))
SLOS = (Slo.parse("p99_tpot_ms<=50"),)


def display(*, terminal: bool, store: Store | None = None) -> tuple[RunDisplay, Console]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=140, color_system=None)
    known = () if store is None else store.trials("night")
    return RunDisplay(console, SLOS, OBJECTIVES, " --store x.db", known), console


def proposal(number: int) -> Proposal:
    return Proposal(number, configuration(64, 300), baseline=False, attempt=1)


def good(energy_j: float, tpot_ms: float) -> Measurement:
    return measurement(energy_j, tpot_ms, 1000.0, Source.MEASURED)


def spent(trials: int) -> Progress:
    return Progress(trials, 10, 60.0 * trials, float("inf"))


def screen(shown: RunDisplay) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(shown.screen())
    return console.file.getvalue()  # type: ignore[attr-defined]


def text(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_screen_shows_what_runs_the_front_the_faults_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    shown, _ = display(terminal=True)
    shown.study_started("night", spent(0))
    for number, found in enumerate((good(0.4, 30.0), good(0.3, 45.0), good(0.2, 61.0), FAILURE)):
        shown.trial_started(proposal(number))
        now_s[0] += 60.0
        shown.trial_ended(proposal(number), found, spent(number + 1))
    shown.trial_started(proposal(4))
    now_s[0] += 45.0
    seen = screen(shown)
    assert shown.front == [1, 0]  # trial 2 missed the SLO
    assert "now: trial 4 for 45 s: max_num_seqs=64" in seen
    assert "4/10 trials, about 6 min left" in seen
    assert "front (2)" in seen
    assert "300 W" in seen
    assert "fault: trial 3: CUDA out of memory [rank 0]" in seen


def test_how_the_load_goes_is_shown_while_it_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    shown, _ = display(terminal=True)
    snapshot = LoadSnapshot(412.0, 1395.0, 35.2, 9.8, Source.MEASURED, Source.EMULATED)
    line = "412 W  1395 MHz  latest answers: TTFT 35.2 ms, TPOT 9.8 ms (emulated)"
    shown.trial_started(proposal(1))
    assert "W" not in screen(shown).split("now:")[1]
    shown.load_sampled(snapshot)
    assert line in screen(shown)
    now_s[0] += 6.0
    assert line not in screen(shown)
    shown.load_sampled(snapshot)
    shown.trial_ended(proposal(1), good(0.3, 40.0), spent(1))
    assert line not in screen(shown)


def test_what_is_not_known_of_the_load_is_left_out() -> None:
    first = LoadSnapshot(412.0, None, None, None, Source.EMULATED, Source.EMULATED)
    assert snapshot_text(first) == "412 W (emulated)"


def test_a_resumed_study_begins_with_the_front_that_it_has(store: Store) -> None:
    shown, _ = display(terminal=True, store=store)
    assert shown.front == [2, 1, 0]


def test_what_has_ended_no_longer_runs() -> None:
    shown, _ = display(terminal=True)
    shown.trial_started(proposal(1))
    shown.trial_ended(proposal(1), good(0.3, 40.0), spent(1))
    assert "now:" not in screen(shown)


def test_elsewhere_each_trial_is_one_plain_line() -> None:
    shown, console = display(terminal=False)
    with shown:
        shown.study_started("night", spent(0))
        shown.trial_started(proposal(0))
        shown.trial_ended(proposal(0), good(0.4, 30.0), spent(1))
        shown.trial_ended(proposal(1), FAILURE, spent(2))
    lines = text(console).splitlines()
    assert len(lines) == 3
    assert "`tuner resume night --store x.db` goes on with it" in lines[0]
    assert lines[1].split()[:2] == ["0", "ok"]
    assert "configuration CUDA out of memory [rank 0]" in lines[2]
    assert "\x1b" not in text(console)


def test_what_was_ended_early_is_marked_as_not_comparable() -> None:
    shown, console = display(terminal=False)
    lost = lost_sentence("is no better than", Lost(0, {"energy_per_output_token_j": 0.1}), 51.0)
    missed = "ended early: 9 of 9 requests were past p99_tpot_ms<=50 in the first 5 s"
    shown.trial_ended(proposal(0), good(0.4, 30.0), spent(1))
    shown.trial_ended(proposal(1), replace(good(0.3, 30.0), ended_early=lost), spent(2))
    shown.trial_ended(proposal(2), replace(good(0.2, 61.0), ended_early=missed), spent(3))
    whole, explained, *early = (line.split() for line in text(console).splitlines())
    assert whole[:3] == ["0", "ok", "0.4"]
    assert " ".join(explained) == EARLY_NOTE
    assert [line[:3] for line in early] == [["1", "early", "0.3*"], ["2", "slo", "0.2*"]]


def test_repeats_are_said_to_be_repeats(store: Store) -> None:
    shown, console = display(terminal=False)
    row = store.trials("night")[1]
    shown.repeat_ended(Step(row, RepeatKind.CONFIRMATION, 0), good(0.3, 45.0))
    assert text(console).rstrip().endswith("again")
