"""The headline is one sentence: in the terminal, on the page, in exports and in messages."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night, repeat
from rich.console import Console

from tuner.analysis.recommendation.recommend import recommend
from tuner.analysis.report_data.report_data import read_report_data
from tuner.report.exports.deployment import deployment
from tuner.report.html.answer import answer
from tuner.report.notify.message import finished_message
from tuner.report.sentences.saving_text import beside_text, confirmation_text, headline
from tuner.report.study_results import load_study
from tuner.report.terminal.recommendation_table import show_recommendation
from tuner.store import Store

SURE = (0.30, 0.30, 0.30, 0.30)
NOISY = (0.36, 0.44, 0.38, 0.415)
WORSE = (0.50, 0.50, 0.50, 0.50)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.open(tmp_path / "tuner.db", create=True)
    add_night(opened, IDENTITY)
    return opened


def confirm(store: Store, ours_j: tuple[float, ...], default_tpot_ms: float = 30.0) -> None:
    for traffic, energy_j in enumerate(ours_j):
        repeat(store, 0, 0.40, default_tpot_ms, traffic=traffic)
        repeat(store, 2, energy_j, 29.0, traffic=traffic)


def everywhere(store: Store) -> dict[str, str]:
    """Return what each report says, on one line and without tags."""
    r = recommend(store)
    console = Console(file=io.StringIO(), width=400, color_system=None)
    show_recommendation(console, r)
    assert isinstance(console.file, io.StringIO)
    page = re.sub(r"<[^>]+>", "", answer(read_report_data(store, "night")).split("<details>")[0])
    return {
        "terminal": console.file.getvalue(),
        "page": html.unescape(page),
        "file": "\n".join(deployment(r).about),
        "message": finished_message(load_study("night", store.shown)).text,
    }


@pytest.mark.parametrize(
    ("ours_j", "default_tpot_ms", "says"),
    [
        (SURE, 30.0, "25.0 % less energy per output token than vLLM's default"),
        (SURE, 60.0, "25.0 % less energy per output token than vLLM's default, which misses the"),
        (WORSE, 60.0, "25.0 % more energy per output token than vLLM's default, which misses the"),
        (
            NOISY,
            60.0,
            "tied with vLLM's default, which misses the SLO (0.6 % less energy is within",
        ),
    ],
)
def test_it_is_the_same_everywhere(
    store: Store, ours_j: tuple[float, ...], default_tpot_ms: float, says: str
) -> None:
    confirm(store, ours_j, default_tpot_ms)
    assert str(headline(recommend(store))).startswith(says)
    for where, text in everywhere(store).items():
        assert str(headline(recommend(store))) in text, where
        assert re.search(r"95 % interval of the saving -?\d+\.\d to -?\d+\.\d %", text), where


def test_how_it_was_confirmed_is_the_same_everywhere(store: Store) -> None:
    confirm(store, SURE)
    said = everywhere(store)
    del said["message"]
    for where, text in said.items():
        assert "onfirmed by 4 measurements beyond the search's own; 95 % interval" in text, where


def test_the_default_is_kept_where_nothing_uses_less(store: Store) -> None:
    for trial in (1, 2):
        for traffic in range(4):
            repeat(store, trial, 0.50, 29.0, traffic=traffic)
    for traffic in range(4):
        repeat(store, 0, 0.40, 30.0, traffic=traffic)
    for where, text in everywhere(store).items():
        assert "eep vLLM's default: it uses the least energy of all that met" in text, where
    asked = recommend(store, trial=0)
    assert str(headline(asked)) == "vLLM's default itself, as asked"


def test_of_which_windows_the_defaults_figures_are(store: Store) -> None:
    assert beside_text(recommend(store)) is None  # of the search, as all are
    confirm(store, SURE)
    said = "the default's figures are of 4 windows of the same traffic"
    assert beside_text(recommend(store)) == said
    single = recommend(store, trial=1)
    assert beside_text(single) == "the default's figures are of its own 4 windows"
    assert beside_text(recommend(store, trial=0)) is None


def test_what_was_measured_once_is_unconfirmed(store: Store) -> None:
    once = "unconfirmed: each figure is of a single window of the search"
    found = recommend(store)
    assert confirmation_text(found.summary_of(found.best)) == once
    repeat(store, 0, 0.40, 30.0, traffic=0)
    repeat(store, 2, 0.325, 48.0, traffic=0)
    found = recommend(store, trial=2)
    said = confirmation_text(found.summary_of(found.best))
    assert said == f"{once}, but the saving is of a window beside the default on other traffic"
