from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from tuner.load.lengths import Constant, Lengths, Lognormal, Quantiles, Uniform

read: TypeAdapter[Lengths] = TypeAdapter(Lengths)


def draw(spec: dict[str, object], count: int = 50_000) -> np.ndarray:
    return read.validate_python(spec).draw(np.random.default_rng(1), count)


def test_lognormal_by_median_and_mean_has_both() -> None:
    drawn = draw(
        {"distribution": "lognormal", "median": 400, "mean": 500, "min": 1, "max": 100_000}
    )
    assert np.median(drawn) == pytest.approx(400, rel=0.02)
    assert drawn.mean() == pytest.approx(500, rel=0.02)


def test_lognormal_by_median_and_p99_has_both() -> None:
    drawn = draw(
        {"distribution": "lognormal", "median": 400, "p99": 3000, "min": 1, "max": 100_000}
    )
    assert np.median(drawn) == pytest.approx(400, rel=0.02)
    assert np.percentile(drawn, 99) == pytest.approx(3000, rel=0.04)


def test_lognormal_without_spread_is_its_median() -> None:
    drawn = draw({"distribution": "lognormal", "median": 40, "mean": 40, "min": 1, "max": 100})
    assert set(drawn) == {40}


def test_quantiles_are_hit_and_the_logarithm_is_interpolated() -> None:
    spec = {
        "distribution": "quantiles",
        "min": 10,
        "max": 100_000,
        "percentiles": {50: 100, 90: 1000},
    }
    drawn = draw(spec)
    for percent, tokens in {50: 100, 90: 1000, 70: math.sqrt(100 * 1000)}.items():
        assert np.percentile(drawn, percent) == pytest.approx(tokens, rel=0.04)


def test_uniform_reaches_both_ends_equally_often() -> None:
    values, counts = np.unique(
        draw({"distribution": "uniform", "min": 3, "max": 6}), return_counts=True
    )
    assert values.tolist() == [3, 4, 5, 6]
    assert counts == pytest.approx([12_500] * 4, rel=0.05)


bounds = st.tuples(st.integers(1, 5000), st.integers(0, 5000)).map(lambda b: (b[0], b[0] + b[1]))


@st.composite
def lengths(draw: st.DrawFn) -> Lengths:
    low, high = draw(bounds)
    kind = draw(st.sampled_from(["constant", "uniform", "lognormal", "quantiles"]))
    if kind == "constant":
        return Constant(distribution="constant", value=low)
    if kind == "uniform":
        return Uniform(distribution="uniform", min=low, max=high)
    if kind == "lognormal":
        median = draw(st.floats(1, 10_000))
        mean = median * draw(st.floats(1, 20))
        return Lognormal(distribution="lognormal", min=low, max=high, median=median, mean=mean)
    middle = draw(st.integers(low, high))
    return Quantiles(distribution="quantiles", min=low, max=high, percentiles={50: middle})


@settings(deadline=None)
@given(lengths(), st.integers(0, 2**63))
def test_every_length_is_a_whole_number_within_bounds(spec: Lengths, seed: int) -> None:
    drawn = spec.draw(np.random.default_rng(seed), 200)
    assert drawn.shape == (200,)
    assert drawn.dtype == np.int64
    assert spec.min <= drawn.min() <= drawn.max() <= spec.max
    assert (drawn == spec.draw(np.random.default_rng(seed), 200)).all()


@settings(deadline=None)
@given(lengths())
def test_written_and_read_again_is_the_same(spec: Lengths) -> None:
    assert isinstance(spec, BaseModel)
    assert read.validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"distribution": "uniform", "min": 9, "max": 8}, "min 9 is more than max 8"),
        ({"distribution": "uniform", "min": 0, "max": 8}, "greater than or equal to 1"),
        ({"distribution": "lognormal", "median": 5, "min": 1, "max": 8}, "either mean or p99"),
        (
            {"distribution": "lognormal", "median": 5, "mean": 6, "p99": 7, "min": 1, "max": 8},
            "either mean or p99",
        ),
        (
            {"distribution": "lognormal", "median": 5, "mean": 4, "min": 1, "max": 8},
            "mean 4 is less than the median 5",
        ),
        (
            {"distribution": "quantiles", "min": 1, "max": 8, "percentiles": {50: 6, 90: 5}},
            "must rise",
        ),
        (
            {"distribution": "quantiles", "min": 1, "max": 8, "percentiles": {100: 6}},
            "between 0 and 100",
        ),
        (
            {"distribution": "quantiles", "min": 1, "max": 8, "percentiles": {50: math.nan}},
            "must rise",
        ),
        ({"distribution": "zipf"}, "'constant', 'uniform', 'lognormal', 'quantiles'"),
    ],
)
def test_what_cannot_be_meant_is_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read.validate_python(spec)
