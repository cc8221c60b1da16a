"""What the recommendation says on a terminal: what it saves, costs, and where it was measured."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from helpers.stored_study import confirm, repeat
from rich.console import Console

from tuner.analysis.recommendation.recommend import recommend
from tuner.errors import UsageError
from tuner.report.json_forms import recommendation_json
from tuner.report.labels import number
from tuner.report.price import Price
from tuner.report.terminal.recommendation_table import show_recommendation
from tuner.store import Store, StudyIdentity

PRICE = Price(0.30, "EUR")


def shown(store: Store, width: int = 80, **asked: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_recommendation(console, recommend(store, trial=asked.get("trial")), "", PRICE)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_when_on_what_and_under_which_load(store: Store, identity: StudyIdentity) -> None:
    output = " ".join(shown(store).split())
    assert "NVIDIA H100 80GB HBM3 (driver 570.86)" in output
    assert "server 0.11.0" in output
    assert "workload chat, closed loop, 32 requests under way" in output
    began = recommend(store).measured_at[0]
    assert f"{began:%Y-%m-%d %H:%M}" in output


def test_what_it_costs_in_latency_energy_and_money(store: Store) -> None:
    confirm(store, (0.27, 48.0))
    found = recommend(store)
    best = found.summary_of(found.best)
    low, high = best.intervals["p99_tpot_ms"]
    assert low < 48.0 < high
    output = " ".join(shown(store).split())
    assert f"p99 TPOT {number(best.p99_tpot_ms)} ms ({number(low)} to {number(high)})" in output
    assert f"{best.changes_percent['p99_tpot_ms']:+.1f} % against" in output
    kwh = best.kwh_per_million_output_tokens
    assert kwh is not None
    assert f"{number(kwh)} kWh, {number(kwh * 0.30)} EUR of GPU energy" in output
    price = recommendation_json(found, PRICE)["price"]
    assert price["per_million_output_tokens"]["2"] == kwh * 0.30
    assert price["currency"] == "EUR"


def test_a_trial_that_was_asked_for_is_called_so_and_deployed(store: Store) -> None:
    output = shown(store, trial=1)
    assert "As asked for" in output and "Recommended" not in output
    assert "--trial 1 --format vllm" in output


def test_of_a_long_front_only_members_with_a_role_are_listed(
    store: Store, identity: StudyIdentity
) -> None:
    found = recommend(store)
    many = replace(found, alternatives=found.alternatives * 4)
    console = Console(file=io.StringIO(), width=80, color_system=None)
    show_recommendation(console, replace(many, roles={}))
    assert isinstance(console.file, io.StringIO)
    assert "8 more on the front: `tuner show night`" in console.file.getvalue()


@pytest.mark.parametrize("per_kwh", [0.0, -1.0, float("inf"), float("nan")])
def test_a_price_that_is_none_is_refused(per_kwh: float) -> None:
    with pytest.raises(UsageError, match="is no price per kWh"):
        Price(per_kwh, "EUR")


def test_more_energy_is_never_shown_as_a_saving(store: Store) -> None:
    for _ in range(2):
        repeat(store, 2, 0.60, 48.0)
        repeat(store, 0, 0.40, 55.0)
    output = " ".join(shown(store).split())
    assert "50.0 % more energy per output token than vLLM's default, which misses the SLO" in output
