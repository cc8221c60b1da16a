from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.load.arrivals import Gamma, drawn_arrivals_s
from tuner.load.draws import IndependentDraws


def gaps_s(arrivals: object, count: int = 20_000, seed: int = 3) -> np.ndarray:
    return np.diff(list(islice(drawn_arrivals_s(arrivals, seed, IndependentDraws()), count)))


@pytest.mark.parametrize(
    ("arrivals", "variation"),
    [
        ("poisson", 1.0),
        ("constant", 0.0),
        (Gamma(gamma=1.0), 1.0),
        (Gamma(gamma=0.25), 2.0),
        (Gamma(gamma=4.0), 0.5),
    ],
)
def test_gaps_have_a_mean_of_one_second_and_the_stated_burstiness(
    arrivals: object, variation: float
) -> None:
    gaps = gaps_s(arrivals)
    assert gaps.mean() == pytest.approx(1.0, rel=0.06)
    assert gaps.std() == pytest.approx(variation, rel=0.06, abs=1e-6)


def test_gamma_of_shape_one_is_exponential() -> None:
    assert (gaps_s(Gamma(gamma=1.0)) > 1.0).mean() == pytest.approx(np.exp(-1.0), rel=0.04)


@settings(deadline=None, max_examples=30)
@given(
    st.one_of(
        st.sampled_from(["poisson", "constant"]),
        st.builds(Gamma, gamma=st.floats(0.01, 1000.0)),
    ),
    st.integers(0, 2**63),
)
def test_times_rise_and_are_the_same_again(arrivals: object, seed: int) -> None:
    times_s = list(islice(drawn_arrivals_s(arrivals, seed, IndependentDraws()), 600))
    assert times_s == list(islice(drawn_arrivals_s(arrivals, seed, IndependentDraws()), 600))
    assert times_s[0] >= 0
    assert all(a <= b for a, b in pairwise(times_s))


@pytest.mark.parametrize("shape", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shape_that_is_none_is_refused(shape: float) -> None:
    with pytest.raises(ValidationError):
        Gamma(gamma=shape)


def test_the_times_of_a_trace_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="not drawn"):
        next(drawn_arrivals_s("trace", 0, IndependentDraws()))
