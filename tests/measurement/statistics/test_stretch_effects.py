"""What further traffic does to a metric is learned from the windows of all configurations."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measurement.statistics.stretch_effects import StretchEffects, Window

PRIOR = 0.1
# As a night measures: the best by then alone on stretches of their own, then three on three more.
NIGHT = [(1, n) for n in range(3)] + [(2, n) for n in range(3, 8)]
NIGHT += [(which, n) for n in range(8, 11) for which in (3, 4)]


def drawn(
    rng: np.random.Generator, configuration: float, stretch: float, rest: float, shift: float
) -> tuple[list[Window], dict[int, float]]:
    """Return windows of a night, and the mean of each configuration."""
    means = {c: shift + rng.normal(0.0, configuration) for c, _ in NIGHT}
    heavy = {n: rng.normal(0.0, stretch) for _, n in NIGHT}
    return [Window(c, n, means[c] + heavy[n] + rng.normal(0.0, rest)) for c, n in NIGHT], means


@pytest.mark.parametrize(
    ("configuration", "stretch", "rest"),
    [(0.02, 0.16, 0.035), (0.05, 0.10, 0.05), (0.0, 0.08, 0.01), (0.1, 0.1, 0.1)],
)
def test_95_of_100_further_windows_are_below_the_quantile(
    configuration: float, stretch: float, rest: float
) -> None:
    """Also those of a configuration with three windows of its own."""
    rng = np.random.default_rng(7)
    spread, within = math.hypot(stretch, rest), []
    for _ in range(150):
        windows, means = drawn(rng, configuration, stretch, rest, rng.normal(0.0, 0.1))
        bound = StretchEffects(windows, PRIOR).forecast(3).quantile(0.95)
        within.append(0.5 * math.erfc((means[3] - bound) / spread / math.sqrt(2.0)))
    assert np.mean(within) == pytest.approx(0.945, abs=0.025)


def with_heaviness(
    rng: np.random.Generator, follows: float, stretch: float, rest: float
) -> tuple[list[Window], dict[int, float]]:
    """Return windows whose stretches follow their heaviness with that correlation."""
    means = {c: rng.normal(0.0, 0.03) for c, _ in NIGHT}
    known = {n: rng.normal() for _, n in NIGHT}
    left = math.sqrt(1.0 - follows**2)
    heavy = {n: stretch * (follows * known[n] + left * rng.normal()) for n in known}
    return [
        Window(c, n, means[c] + heavy[n] + rng.normal(0.0, rest), known[n]) for c, n in NIGHT
    ], means


@pytest.mark.parametrize("follows", [0.0, 0.5, 0.9])
def test_the_quantile_holds_whether_stretches_follow_their_heaviness_or_not(follows: float) -> None:
    rng = np.random.default_rng(11)
    spread, within = math.hypot(0.16, 0.035), []
    for _ in range(150):
        windows, means = with_heaviness(rng, follows, 0.16, 0.035)
        bound = StretchEffects(windows, PRIOR).forecast(3).quantile(0.95)
        within.append(0.5 * math.erfc((means[3] - bound) / spread / math.sqrt(2.0)))
    assert np.mean(within) == pytest.approx(0.945, abs=0.025)


def test_a_heaviness_that_is_followed_tells_the_mean_and_the_bound_better() -> None:
    rng, errors, bounds = np.random.default_rng(12), [], []
    for _ in range(60):
        windows, means = with_heaviness(rng, 0.9, 0.16, 0.035)
        ignorant = [replace(w, heaviness=None) for w in windows]
        both = [StretchEffects(w, PRIOR).forecast(3) for w in (windows, ignorant)]
        errors.append([one.mean - means[3] for one in both])
        bounds.append([one.quantile(0.95) - means[3] for one in both])
    for found in (errors, bounds):
        with_it, without = np.std(found, axis=0)
        assert with_it < 0.8 * without


def test_one_window_whose_heaviness_is_not_known_leaves_it_out_of_all() -> None:
    windows, _ = with_heaviness(np.random.default_rng(13), 0.9, 0.16, 0.035)
    ignorant = [replace(w, heaviness=None) for w in windows]
    some, none = (
        StretchEffects(w, PRIOR).forecast(3) for w in ([ignorant[0], *windows[1:]], ignorant)
    )
    assert some.quantile(0.95) == none.quantile(0.95)


def test_all_windows_together_say_more_than_the_own_ones() -> None:
    rng = np.random.default_rng(2)
    windows, _ = drawn(rng, 0.01, 0.1, 0.02, 0.05)
    own = [w for w in windows if w.configuration == 3]
    together, alone = (StretchEffects(rows, PRIOR).forecast(3) for rows in (windows, own))
    assert together.quantile(0.95) - together.mean < 0.8 * (alone.quantile(0.95) - alone.mean)


def test_before_anything_was_measured_the_spread_is_the_prior() -> None:
    forecast = StretchEffects([], PRIOR).forecast()
    assert forecast.mean == 0.0
    assert forecast.spread == pytest.approx(PRIOR)
    assert forecast.chance_above(0.0) == pytest.approx(0.5)


def test_one_stretch_that_is_far_off_counts_as_one() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.0, 0.05, 20)
    calm = [Window(1, n, float(v)) for n, v in enumerate(values)]
    hit = [*calm[:-1], Window(1, 19, 2.0)]
    before, after = (StretchEffects(rows, PRIOR).forecast(1).spread for rows in (calm, hit))
    assert before < after < 1.6 * before


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=8), st.floats(-0.5, 0.5))
def test_chances_fall_with_the_value_and_agree_with_the_quantile(
    differences: list[float], value: float
) -> None:
    windows = [Window(n % 2, n, d) for n, d in enumerate(differences)]
    forecast = StretchEffects(windows, PRIOR).forecast(0)
    assert 0.0 <= forecast.chance_above(value + 0.1) <= forecast.chance_above(value) <= 1.0
    assert forecast.chance_above(forecast.quantile(0.9)) == pytest.approx(0.1, abs=1e-3)
    holds = [forecast.chance_that_95_of_100_are_below(value + more) for more in (0.0, 0.1)]
    assert 0.0 <= holds[0] <= holds[1] <= 1.0


def test_what_cannot_hold_is_told_from_what_may() -> None:
    rng = np.random.default_rng(4)
    windows, means = drawn(rng, 0.01, 0.08, 0.01, 0.0)
    forecast = StretchEffects(windows, PRIOR).forecast(3)
    assert forecast.chance_that_95_of_100_are_below(means[3] + 0.02) < 0.1
    assert forecast.chance_that_95_of_100_are_below(means[3] + 0.25) > 0.9


def test_what_cannot_hold_is_not_shown_to_and_what_surely_does_is() -> None:
    rng = np.random.default_rng(4)
    windows, means = drawn(rng, 0.01, 0.08, 0.01, 0.0)
    forecast = StretchEffects(windows, PRIOR).forecast(3)
    assert forecast.chance_to_show(means[3] + 0.02, 6, 0.95) < 0.05
    assert forecast.chance_to_show(means[3] + 0.25, 6, 0.95) > 0.95


def test_what_is_known_well_and_in_doubt_is_less_likely_to_be_shown_than_what_is_new() -> None:
    rng = np.random.default_rng(5)
    own = np.repeat(rng.normal(0.0, 0.05, 4), 8)
    differences = own + rng.normal(0.0, 0.1, own.size)
    windows = [Window(n // 8, n, float(d)) for n, d in enumerate(differences)]
    effects = StretchEffects(windows, PRIOR)
    known, new = (
        one.chance_to_show(one.quantile(0.93), 6, 0.95)
        for one in (effects.forecast(0), effects.forecast())
    )
    assert known < new - 0.05 and new < 0.5


def test_as_many_are_shown_to_hold_as_were_forecast_to_be() -> None:
    rng = np.random.default_rng(11)
    forecast: dict[float, list[float]] = {0.02: [], 0.04: [], 0.05: [], 0.1: []}
    shown: dict[float, list[bool]] = {missed: [] for missed in forecast}
    for _ in range(60):
        own = rng.normal(0.0, 0.03, 3)
        windows = [Window(n % 3, n, float(own[n % 3] + rng.normal(0.0, 0.11))) for n in range(12)]
        before = StretchEffects(windows, PRIOR).forecast(0)
        further = [Window(0, 12 + n, float(own[0] + rng.normal(0.0, 0.11))) for n in range(2)]
        after = StretchEffects([*windows, *further], PRIOR).forecast(0)
        for missed in forecast:
            value = before.quantile(1.0 - missed)
            forecast[missed].append(before.chance_to_show(value, 2, 0.955))
            shown[missed].append(after.chance_above(value) <= 0.045)
    for missed, chances in forecast.items():
        assert np.mean(chances) == pytest.approx(np.mean(shown[missed]), abs=0.12)
    assert np.mean(shown[0.02]) > 0.9 and np.mean(shown[0.1]) < 0.1
