import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measurement.statistics.compare import (
    Comparison,
    Estimate,
    Repeat,
    Verdict,
    compare,
    drift_of,
    estimate,
    pooled_estimates,
)
from tuner.records import FloatArray

METRIC = "energy_per_output_token_j"
HOURS_8_S = 8 * 3600.0


def repeats(values: list[float], times_s: list[float] | None = None) -> list[Repeat]:
    times_s = times_s or [float(i) for i in range(len(values))]
    return [Repeat(t, v) for t, v in zip(times_s, values, strict=True)]


def test_the_mean_of_repeats_has_students_interval() -> None:
    found = estimate([10.0, 11.0, 12.0])
    assert found.interval is not None
    half = 4.302653 * 1.0 / math.sqrt(3)  # t(0.975, 2) from tables; standard deviation 1
    assert found.mean == pytest.approx(11.0)
    assert found.interval.low == pytest.approx(11.0 - half, rel=1e-6)
    assert found.interval.high == pytest.approx(11.0 + half, rel=1e-6)


def test_one_repeat_has_no_interval_and_none_is_an_error() -> None:
    assert estimate([10.0]) == Estimate(10.0, None, 1)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_a_clear_difference_has_the_metrics_own_sign() -> None:
    lower, base = repeats([8.0, 8.01, 7.99]), repeats([10.0, 10.02, 9.99])
    assert compare(METRIC, lower, base).verdict is Verdict.BETTER
    assert compare(METRIC, base, lower).verdict is Verdict.WORSE
    throughput = "output_throughput_tok_s"
    assert compare(throughput, lower, base).verdict is Verdict.WORSE
    assert compare(throughput, base, lower).verdict is Verdict.BETTER


def test_one_run_against_one_cannot_be_judged() -> None:
    found = compare(METRIC, repeats([5.0]), repeats([10.0]))
    assert found.verdict is Verdict.UNKNOWN
    assert found.interval is None
    assert found.difference == pytest.approx(-0.5)
    assert found.drift.change is None


def test_equal_values_are_a_tie() -> None:
    assert compare(METRIC, repeats([0.1, 0.1]), repeats([0.1, 0.1, 0.1])).verdict is Verdict.TIED


def test_values_that_cannot_be_measurements_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        compare(METRIC, repeats([0.0]), repeats([1.0]))
    with pytest.raises(ValueError, match="expected runs"):
        compare(METRIC, repeats([1.0]), [])


def test_a_drift_is_taken_out_and_reported() -> None:
    """The configuration ran late on a machine that uses 2 % more per hour: still 10 % better."""

    def machine(hour: float) -> float:
        return 1.02**hour

    base = repeats([10.0 * machine(h) for h in (0, 4, 8)], [0, 4, 8])
    ours = repeats([9.0 * machine(h) for h in (6, 7)], [6, 7])
    found = compare(METRIC, ours, base)
    assert found.difference == pytest.approx(-0.1)
    assert found.verdict is Verdict.BETTER
    assert found.drift.change == pytest.approx(1.02**8 - 1)
    assert found.drift.seen
    naive = np.mean([r.value for r in ours]) / np.mean([r.value for r in base]) - 1
    assert abs(naive + 0.1) > 0.04  # what comparing the means would have said


def test_a_bend_of_the_drift_is_followed_between_baseline_runs() -> None:
    base = repeats([10.0, 12.0, 12.0], [0, 1, 2])
    late = compare(METRIC, repeats([12.0, 12.0], [1.4, 1.6]), base)
    early = compare(METRIC, repeats([math.sqrt(120.0)] * 2, [0.5, 0.5]), base)
    assert late.difference == pytest.approx(0.0, abs=1e-12)
    assert early.difference == pytest.approx(0.0, abs=1e-12)


def test_noise_is_no_drift() -> None:
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(300):
        values = list(10 * np.exp(0.01 * rng.standard_normal(6)))
        seen += drift_of(repeats(values)).seen
    assert 0.02 <= seen / 300 <= 0.08


positive = st.floats(0.01, 1e4)


@given(st.lists(positive, min_size=1, max_size=5), st.lists(positive, min_size=1, max_size=6))
def test_swapping_the_sides_and_scaling_the_unit_change_nothing_else(
    ours: list[float], theirs: list[float]
) -> None:
    forth = compare(METRIC, repeats(ours, [1.0] * len(ours)), repeats(theirs, [1.0] * len(theirs)))
    back = compare(METRIC, repeats(theirs, [1.0] * len(theirs)), repeats(ours, [1.0] * len(ours)))
    assert (1 + forth.difference) * (1 + back.difference) == pytest.approx(1.0)
    swapped = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    assert back.verdict is swapped.get(forth.verdict, forth.verdict)
    scaled = compare(
        METRIC,
        repeats([1e3 * v for v in ours], [1.0] * len(ours)),
        repeats([1e3 * v for v in theirs], [1.0] * len(theirs)),
    )
    assert scaled.difference == pytest.approx(forth.difference, rel=1e-9, abs=1e-9)


NIGHTS = 300
GRID = np.linspace(0.0, 1.0, 50)  # a night
Machine = Callable[[np.random.Generator], FloatArray]


def still(_rng: np.random.Generator) -> FloatArray:
    return np.zeros(GRID.size)


def warming(_rng: np.random.Generator) -> FloatArray:
    return 0.05 * GRID


def wavering(rng: np.random.Generator) -> FloatArray:
    return np.cumsum(rng.normal(0.0, 0.01 / math.sqrt(GRID.size), GRID.size))


def nights(runs: int, baselines: int, machine: Machine, factor: float) -> list[Comparison]:
    """A configuration's runs at random times of a night, each run with 1 % of its own error."""
    rng = np.random.default_rng([runs, baselines])
    found = []
    for _ in range(NIGHTS):
        times = np.concatenate([rng.uniform(0, 1, runs), np.linspace(0, 1, baselines)])
        noise = 0.01 * rng.standard_normal(times.size)
        values = 10.0 * np.exp(np.interp(times, GRID, machine(rng)) + noise)
        values[:runs] *= factor
        both = repeats(values.tolist(), (HOURS_8_S * times).tolist())
        found.append(compare(METRIC, both[:runs], both[runs:]))
    return found


@pytest.mark.parametrize("machine", [still, warming, wavering])
@pytest.mark.parametrize(("runs", "baselines"), [(2, 3), (3, 5), (1, 6)])
def test_a_configuration_is_not_different_from_itself(
    runs: int, baselines: int, machine: Machine
) -> None:
    found = nights(runs, baselines, machine, 1.0)
    different = sum(c.verdict is not Verdict.TIED for c in found)
    assert different / NIGHTS <= 0.07


def test_a_real_saving_is_found_and_its_interval_holds_it() -> None:
    found = nights(3, 6, warming, 0.95)
    assert sum(c.verdict is Verdict.BETTER for c in found) / NIGHTS >= 0.95
    held = sum(c.interval is not None and c.interval.low <= -0.05 <= c.interval.high for c in found)
    assert 0.90 <= held / NIGHTS <= 0.99


@given(st.lists(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=4), min_size=1, max_size=4))
def test_an_interval_that_says_nothing_is_none(groups: list[list[float]]) -> None:
    for found in pooled_estimates(groups):
        if found.interval is not None:
            assert 0.0 < found.interval.low <= found.interval.high < math.inf
            assert found.interval.half_width <= found.mean
    (first,) = pooled_estimates([[1.0, 1000.0]])  # two repeats, 1e-39 to 1e42 by Student's t
    assert first.interval is None
