"""What a deployment says of itself: the saving in words that fit it, and the SLO's verdict."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night, repeat

from tuner.analysis.recommendation.recommend import recommend
from tuner.report.exports.deployment import deployment
from tuner.slo import Slo
from tuner.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.open(tmp_path / "tuner.db", create=True)
    add_night(opened, IDENTITY)
    return opened


def about(store: Store, *slos: str, trial: int | None = None) -> str:
    bounds = [Slo.parse(slo) for slo in slos] or None
    return "\n".join(deployment(recommend(store, slos=bounds, trial=trial)).about)


def test_a_saving_is_less_energy(store: Store) -> None:
    assert "37.5 % less energy per output token than vLLM's default" in about(store)


def test_what_takes_more_says_more(store: Store) -> None:
    for traffic in range(4):
        repeat(store, 0, 0.40, 30.0, traffic=traffic)
        repeat(store, 2, 0.44, 20.0, traffic=traffic)
    assert "10.0 % more energy per output token than vLLM's default" in about(store, trial=2)


def test_what_the_noise_hides_is_tied(store: Store) -> None:
    for traffic, factor in enumerate((0.9, 1.1, 0.95, 1.04)):
        repeat(store, 0, 0.40, 30.0, traffic=traffic)
        repeat(store, 2, 0.40 * factor, 30.0, traffic=traffic)
    assert "tied with vLLM's default (" in about(store, trial=2)


def test_a_default_that_misses_the_slo_is_no_yardstick(store: Store) -> None:
    text = about(store, "p99_tpot_ms<=29", trial=2)
    assert "than vLLM's default, which misses the SLO" in text


def test_whether_the_slo_is_met_on_other_traffic(store: Store) -> None:
    assert "windows on other traffic" not in about(store)
    for traffic in range(4):
        repeat(store, 0, 0.40, 20.0, traffic=traffic)
        repeat(store, 2, 0.30, 30.0, traffic=traffic)
    assert re.search(r"every SLO is met: .* of 100 windows on other traffic", about(store))
