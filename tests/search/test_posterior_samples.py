from __future__ import annotations

import numpy as np
import pytest

from tuner.search.acquisition import Utility
from tuner.search.observation import Observation
from tuner.search.posterior import Models, fit_models
from tuner.search.posterior_samples import sample_posterior
from tuner.search.space import Knob, Point, Space

SPACE = Space([Knob("works", tuple(range(11))), Knob("idle", tuple(range(101)))])
POINTS = [{"works": w, "idle": i} for w in range(0, 11, 2) for i in (0, 100)]


def observed(point: Point, rng: np.random.Generator) -> Observation:
    """Two objectives that pull apart; the second knob does nothing."""
    x = float(point["works"]) / 10
    noise = 0.05 * rng.standard_normal(2)
    return Observation(point, objectives=(x + noise[0], (1 - x) ** 2 + noise[1]))


@pytest.fixture(scope="module")
def models() -> Models:
    rng = np.random.default_rng(0)
    found = fit_models(SPACE, [observed(point, rng) for point in POINTS for _ in range(2)], 0)
    assert found is not None
    return found


def gain(models: Models, point: Point, *, is_drawn: bool) -> float:
    """Return what a point is expected to add, known to go along with the draws or not."""
    draws = sample_posterior(models, POINTS, 32, seed=1)
    x = SPACE.coordinates_of([point])
    posterior = models.posterior(SPACE.coordinates_of(POINTS))
    likely, elsewhere = np.ones(len(POINTS), dtype=np.bool_), np.empty((0, 2))
    utility = Utility.around(posterior.objective_means, likely, elsewhere)
    means, sds = draws.predict(x)
    if not is_drawn:
        own = models.posterior(x)
        means, sds = np.repeat(own.objective_means[None], 32, axis=0), own.objective_sds
    log_feasible = draws.log_feasible(x, models.log_works(x))
    return float(np.exp(utility.log_gains(means, sds, draws.fronts, log_feasible))[0])


def test_what_must_do_as_a_seen_point_does_adds_nothing(models: Models) -> None:
    same, between = {"works": 4, "idle": 2}, {"works": 5, "idle": 0}
    assert gain(models, same, is_drawn=True) < 0.5 * gain(models, same, is_drawn=False)
    assert gain(models, same, is_drawn=True) < 0.5 * gain(models, between, is_drawn=True)


def test_draws_scatter_as_the_models_do(models: Models) -> None:
    x = SPACE.coordinates_of([{"works": 3, "idle": 5}])
    means, sds = sample_posterior(models, POINTS, 2_000, seed=2).predict(x)
    own = models.posterior(x)
    assert means[:, 0].mean(axis=0) == pytest.approx(own.objective_means[0], abs=0.005)
    spread = np.sqrt(means[:, 0].var(axis=0) + sds[0] ** 2)
    assert spread == pytest.approx(own.objective_sds[0], rel=0.1)


def test_a_believed_point_joins_each_front_where_its_draw_has_it(models: Models) -> None:
    draws = sample_posterior(models, POINTS, 4, seed=3)
    point = {"works": 5, "idle": 5}
    after = draws.fantasize([point])
    x = SPACE.coordinates_of([point])
    means, sds = after.predict(x)
    assert means == pytest.approx(draws.predict(x)[0], abs=1e-6)
    assert (sds < draws.predict(x)[1]).all()
    for front, (mean,) in zip(after.fronts, means, strict=True):
        assert any(np.all(row <= mean + 1e-9) for row in front)


def test_doubt_widens_and_moves_nothing(models: Models) -> None:
    draws = sample_posterior(models, POINTS, 4, seed=3)
    x = SPACE.coordinates_of([{"works": 5, "idle": 5}])
    means, sds = draws.with_std_scale(3.0).predict(x)
    assert means == pytest.approx(draws.predict(x)[0])
    assert sds == pytest.approx(3.0 * draws.predict(x)[1])


def bounded(point: Point, rng: np.random.Generator) -> Observation:
    """The same with a constraint that half of the range meets, up to noise."""
    seen = observed(point, rng)
    violation = float(point["works"]) / 10 - 0.4 + 0.05 * rng.standard_normal()
    return Observation(point, objectives=seen.objectives, violations=(violation,))


def test_beside_a_point_that_misses_a_constraint_in_a_sample_so_does_a_new_one() -> None:
    rng = np.random.default_rng(0)
    models = fit_models(SPACE, [bounded(point, rng) for point in POINTS for _ in range(2)], 1)
    assert models is not None
    draws = sample_posterior(models, POINTS, 64, seed=1)
    x = SPACE.coordinates_of([{"works": 4, "idle": 0}, {"works": 4, "idle": 1}])
    each = np.exp(draws.log_feasible(x, np.zeros(2)))
    assert 0.1 < each[:, 0].mean() < 0.9  # it is not known, but in each sample it is
    assert each[:, 0].std() > 0.3
    assert np.corrcoef(each.T)[0, 1] > 0.9


def test_the_largest_violation_falls_on_from_the_least_of_each_sample() -> None:
    rng = np.random.default_rng(0)
    missed = [point for point in POINTS if int(point["works"]) >= 6]
    models = fit_models(SPACE, [bounded(point, rng) for point in missed for _ in range(2)], 1)
    assert models is not None
    draws = sample_posterior(models, missed, 8, seed=1)
    x = SPACE.coordinates_of([{"works": w, "idle": 0} for w in (8, 6, 4, 2)])
    lowering = draws.log_lowering(x)
    assert (np.diff(lowering) > 0.0).all()
    after = draws.fantasize([{"works": 2, "idle": 0}]).log_lowering(x)
    assert after[-1] < lowering[-1] - 1.0
