"""How far within its SLOs the search has to aim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.night_rows import repeat, trial_with, values
from helpers.records import measured, trial_row

from tuner.analysis.outlook import Outlook, energy_shift, margins
from tuner.configuration import Configuration
from tuner.measurement.statistics.unseen_traffic import MOST_MISSES
from tuner.metrics import STRETCH_HEAVINESS
from tuner.slo import Slo
from tuner.store import RepeatRow

SLO = Slo("p99_tpot_ms", 50.0)
TRIALS = [
    trial_row(0, values(0.4, 20.0), Configuration()),
    trial_with(1, {"energy_per_output_token_j": 0.3, "p99_tpot_ms": 40.0}),
]


def on_unseen(trial: int, *tpots_ms: float) -> list[RepeatRow]:
    return [
        replace(repeat(n, trial, values(0.3, tpot)), traffic=n) for n, tpot in enumerate(tpots_ms)
    ]


def test_before_anything_is_repeated_the_margin_is_the_prior() -> None:
    margin = margins([SLO], TRIALS, [])[str(SLO)]
    assert margin.shift == 0.0
    assert margin.needed == pytest.approx(1.8 * 0.1)


def test_the_margin_is_learned_from_what_was_measured_elsewhere() -> None:
    rng = np.random.default_rng(1)
    tpots = 40.0 * np.exp(0.05 + 0.03 * rng.standard_normal(60))
    margin = margins([SLO], TRIALS, on_unseen(1, *tpots))[str(SLO)]
    assert margin.shift == pytest.approx(0.05, abs=0.01)
    assert margin.spread == pytest.approx(0.03, abs=0.01)


def test_the_default_counts_only_while_nothing_else_was_repeated() -> None:
    alone = margins([SLO], TRIALS, on_unseen(0, 30.0, 30.0))[str(SLO)]
    both = margins([SLO], TRIALS, [*on_unseen(0, 30.0, 30.0), *on_unseen(1, 40.0, 40.0)])[str(SLO)]
    assert alone.shift > 0.2
    assert both.shift == 0.0


def test_repeats_on_the_searchs_own_traffic_say_nothing() -> None:
    assert margins([SLO], TRIALS, [repeat(0, 1, values(0.3, 80.0))])[str(SLO)].shift == 0.0


def test_savings_shrink_by_what_they_lost_so_far() -> None:
    assert energy_shift(TRIALS, {}) == 0.0
    assert energy_shift(TRIALS, {1: 0.75 * 1.04}) == pytest.approx(np.log(1.04) / 2.0)


def test_that_the_stretches_measured_were_heavy_is_not_taken_for_the_traffic() -> None:
    """Where it is known how heavy they are, further ones are expected to be lighter."""
    rng = np.random.default_rng(8)
    heaviness = rng.normal(1.0, 0.7, 12)
    tpots = 40.0 * np.exp(0.1 * heaviness + 0.01 * rng.standard_normal(12))
    rows = on_unseen(1, *tpots)
    told = [
        replace(row, measurement=replace(found, metrics={**found.metrics, STRETCH_HEAVINESS: z}))
        for row, z in zip(rows, heaviness.tolist(), strict=True)
        if (found := row.measurement) is not None
    ]
    untold, known = (margins([SLO], TRIALS, some)[str(SLO)] for some in (rows, told))
    assert untold.shift == pytest.approx(0.1, abs=0.05)
    assert known.shift == pytest.approx(0.0, abs=0.02)
    assert known.spread == pytest.approx(0.1, abs=0.02)


def test_what_one_slo_is_missed_leaves_less_for_the_others() -> None:
    """Each alone was all but met, and together they were missed too often to be shown."""
    other = Slo("p99_ttft_ms", 500.0)
    found = {"energy_per_output_token_j": 0.3, "p99_tpot_ms": 39.6, "p99_ttft_ms": 396.0}
    trials = [TRIALS[0], trial_with(1, found)]
    by = np.exp(0.1 * np.random.default_rng(3).standard_normal((12, 2)))
    rows = [
        replace(
            repeat(
                n,
                1,
                measured({**found, "p99_tpot_ms": 39.6 * of[0], "p99_ttft_ms": 396.0 * of[1]}),
            ),
            traffic=n,
        )
        for n, of in enumerate(by.tolist())
    ]
    each = [Outlook([slo], trials, rows) for slo in (SLO, other)]
    both = Outlook([SLO, other], trials, rows)
    assert all(one.miss_chance(1) <= MOST_MISSES for one in each)
    assert all(one.chance_to_show(1, 1) > 0.5 for one in each)
    assert both.miss_chance(1) > 1.15 * MOST_MISSES
    assert both.chance_to_show(1, 1) < 0.25
