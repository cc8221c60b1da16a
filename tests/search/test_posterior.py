from __future__ import annotations

import math

import numpy as np
import pytest

from tuner.search.failures.feasibility import Feasibility
from tuner.search.observation import Observation
from tuner.search.posterior import bilog, fit_models
from tuner.search.space import Knob, Space

SPACE = Space([Knob("a", tuple(range(21)))])


def seen(a: int, violation: float, **more) -> Observation:
    return Observation({"a": a}, objectives=(a / 20,), violations=(violation,), **more)


def test_nothing_is_learned_from_too_little() -> None:
    crash = Observation({"a": 1}, works=False)
    assert fit_models(SPACE, [], 1) is None
    assert fit_models(SPACE, [crash, crash], 1) is None
    assert fit_models(SPACE, [crash, seen(2, 0.1)], 1) is None
    assert fit_models(SPACE, [seen(1, -0.1), seen(2, 0.1)], 1) is not None


def test_the_bound_is_found_between_what_meets_it_and_what_does_not() -> None:
    models = fit_models(SPACE, [seen(a, (a - 10) / 10) for a in (0, 4, 8, 12, 16, 20)], 1)
    assert models is not None
    log_p = models.posterior(SPACE.coordinates_of([{"a": a} for a in (7, 10, 13)])).log_feasible()
    assert log_p[0] > math.log(0.95)
    assert log_p[2] < math.log(0.05)


def test_a_lower_bound_is_raised_to_what_its_neighbours_say() -> None:
    near = [seen(a, a / 5 - 2) for a in (0, 3, 6, 9, 14, 17, 20)]
    early = Observation({"a": 18}, objectives=(None,), violations=(0.1,), at_least=(0,))
    censored, exact = (
        fit_models(SPACE, [*near, early], 1),
        fit_models(SPACE, [*near, seen(18, 0.1)], 1),
    )
    assert censored is not None and exact is not None
    x = SPACE.coordinates_of([{"a": 18}])
    truth = bilog(np.array(18 / 5 - 2))
    off = [abs(m.posterior(x).violation_means[0, 0] - truth) for m in (censored, exact)]
    assert off[0] < 0.5 * off[1]


def test_an_unknown_metric_does_not_count_as_zero() -> None:
    half = Observation({"a": 19}, objectives=(None,), violations=(0.5,))
    models = fit_models(SPACE, [seen(a, 0.0) for a in (0, 5, 10, 15)] + [half], 1)
    assert models is not None
    mean = models.posterior(SPACE.coordinates_of([{"a": 19}])).objective_means[0, 0]
    assert mean == pytest.approx(0.95, abs=0.15)


def test_crashes_are_a_region_and_nothing_is_feared_without_one() -> None:
    x = np.linspace(0, 1, 11)[:, None]
    ordered = np.array([False])
    none = Feasibility(x, np.ones(11, dtype=bool), ordered)
    assert (none.log_probability(x) == 0.0).all()
    half = Feasibility(x, x[:, 0] < 0.6, ordered)
    p = np.exp(half.log_probability(np.array([[0.05], [0.35], [0.75], [0.95]])))
    assert p[0] > 0.9 and p[1] > 0.85
    assert p[2] < 0.2 and p[3] < 0.1


def test_far_violations_are_compressed_and_near_ones_kept() -> None:
    assert bilog(np.array([0.01, -0.01])) == pytest.approx([0.01, -0.01], rel=0.01)
    assert bilog(np.array(8.0)) == pytest.approx(math.log(9.0))
    assert (np.diff(bilog(np.linspace(-5, 5, 101))) > 0).all()
