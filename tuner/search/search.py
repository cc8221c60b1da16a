"""Bayesian optimisation with constraints and evaluation costs: proposes the next point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tuner.search.acquisition import Utility
from tuner.search.candidates import Candidates
from tuner.search.failures.causes import FailureCauses
from tuner.search.failures.first_result import log_promise
from tuner.search.launch_choice import Costs, choose_row, estimated_costs
from tuner.search.observation import Observation, Suggestion, working_points
from tuner.search.posterior import Models, fit_constraints, fit_models
from tuner.search.posterior_samples import PosteriorSamples, sample_posterior
from tuner.search.space import Flags, Floats, Levels, Point, Space
from tuner.search.start_design import StartDesign

# When the best point is expected to gain less than this share, the models are asked again with
# wider standard deviations: a stationary process is too sure of where the function bends.
IDLE_GAIN = 5e-4
IDLE_GAIN_IN_DOUBT = 2e-3  # what those then expect is less than this, once the search is done
_WIDER_STD_SCALE = 3.0

# Of what a repeat is worth: the rest would be found out as well when the front is confirmed.
_REPEAT_SHARE = 0.2

_POSTERIOR_SAMPLES = 8
_CLIMBERS = 6
_CLIMBS = 3
_UNDECIDED = (0.02, 0.98)
_SEEDS = 2**31
_LOG_LIKELY = math.log(0.5)
# The front may go on where nothing was evaluated: among so many random points, so likely feasible.
_PLAUSIBLE_OF = 512
_LOG_PLAUSIBLE = math.log(0.1)


class ExhaustedError(Exception):
    """Every possible point was evaluated."""


class Search:
    """Proposes points for noisy functions with constraints, where evaluations cost time.

    Attributes:
        space: the knobs.
        violations: how many constraints there are.
        default: the point to begin with.
        is_possible: says of a point, without evaluating it, whether it can work at all.
        seed: two searches with the same seed and observations propose the same.
        starts: how many points are spread over the space before a model decides; by default up to
            eight, among them each other option of a launch (see `start_design`).
    """

    def __init__(
        self,
        space: Space,
        *,
        violations: int,
        default: Point | None = None,
        is_possible: Callable[[Point], bool] = lambda _: True,
        seed: int = 0,
        starts: int | None = None,
    ) -> None:
        self._space = space
        self._violations = violations
        self._is_possible = is_possible
        self._seed = seed
        self._default = default
        self._start = StartDesign(space, starts, seed, is_possible, default)

    def propose(
        self,
        observations: Sequence[Observation],
        pending: Sequence[Point] = (),
        warm: Point | None = None,
        causes: FailureCauses | None = None,
    ) -> Suggestion:
        """Return what to evaluate next.

        `pending` points are under way, `warm` is what the running server was launched with.
        `causes` are those of failures, by default those that the observations show. Raises
        `ExhaustedError` when no point is left.
        """
        tried = {self._space.key(o.point) for o in observations}
        tried |= {self._space.key(point) for point in pending}
        known = FailureCauses.of(self._space, observations) if causes is None else causes
        for planned in self._plan(known, observations):
            if self._space.key(planned.point) not in tried:
                return planned
        rng = np.random.default_rng([self._seed, len(observations), len(pending)])
        excluded = [*(o.point for o in observations), *pending]
        candidates = Candidates(
            self._space,
            lambda point: not known.rules_out(point) and self._is_possible(point),
            excluded,
        )
        models = fit_models(self._space, observations, self._violations)
        working = working_points(self._space, observations)
        costs = estimated_costs(observations)
        if models is None or not working:
            constraints = fit_constraints(self._space, observations, self._violations)
            pool = rng.permutation(candidates.pool(rng, working, warm))
            return self._first_result(constraints.fantasize(pending), working, pool, warm, costs)
        step = _Step(models.fantasize(pending), [*working, *pending], candidates, rng)

        def rate(option: tuple[Point, float]) -> float:
            point, log_gain = option
            row = self._space.levels_of(point)[None]
            return log_gain - float(self._log_seconds(row, warm, costs)[0])

        best = step.best_new(warm, costs)
        # before there is a front, a new point's gain is less violation: no match for a repeat's
        competes = best is None or not step.seeks_feasible
        repeat = step.best_repeat(working, rate) if competes else None
        if best is None and repeat is None:
            raise ExhaustedError("every possible point was evaluated")
        if best is None or (repeat is not None and rate(repeat) > rate(best)):
            assert repeat is not None
            share = step.share(repeat[1])
            if best is None or not _is_idle(share):
                return Suggestion(repeat[0], "repeat", share)
        share = step.share(best[1])
        if not _is_idle(share):
            return Suggestion(best[0], "improvement", share)
        doubtful = step.best_new(warm, costs, _WIDER_STD_SCALE) or best
        return Suggestion(doubtful[0], "doubt", share, step.share(doubtful[1]))

    def _plan(self, causes: FailureCauses, observations: Sequence[Observation]) -> list[Suggestion]:
        """Return the default and the start design, without what is known to fail."""
        points = self._start.points(observations, causes.rules_out)
        return [
            *([] if self._default is None else [Suggestion(self._default, "default")]),
            *(Suggestion(point, "start") for point in points),
        ]

    def _log_seconds(self, rows: Levels, warm: Point | None, costs: Costs) -> Floats:
        """Return the log of how long each row of levels (N, D) takes to evaluate, shape (N,).

        With the launch, unless `warm` will do.
        """
        restarting = self._space.restarting
        needs_launch = np.full(len(rows), bool(restarting.any()))
        if warm is not None:
            differs = rows[:, restarting] != self._space.levels_of(warm)[restarting]
            needs_launch &= differs.any(axis=1)
        seconds: Floats = np.log(costs.evaluation_s + costs.launch_s * needs_launch)
        return seconds

    def _first_result(
        self,
        models: Models,
        working: Sequence[Point],
        rows: Levels,
        warm: Point | None,
        costs: Costs,
    ) -> Suggestion:
        """Return that of `rows` (N, D) that promises the most per second, the first of equals."""
        if not len(rows):
            raise ExhaustedError("every possible point was evaluated")
        log_promises = log_promise(models, rows, self._space.coordinates_of(working))
        best = int(np.argmax(log_promises - self._log_seconds(rows, warm, costs)))
        return Suggestion(self._space.point(rows[best]), "start")


def _is_idle(share: float | None) -> bool:
    return share is not None and share < IDLE_GAIN


class _Step:
    """One proposal: the posterior now, and what each further point is expected to gain.

    Attributes:
        seeks_feasible: no point seen is likely to be feasible, and a gain is a lower violation.
    """

    def __init__(
        self,
        models: Models,
        points: Sequence[Point],
        candidates: Candidates,
        rng: np.random.Generator,
    ) -> None:
        self._models = models
        self._candidates = candidates
        self._space = models.space
        self._points = points
        self._rng = rng
        posterior = models.posterior(self._space.coordinates_of(points))
        self._means = posterior.objective_means
        self._violation_sds = posterior.violation_sds
        self._log_feasible = posterior.log_feasible()
        is_likely = self._log_feasible > _LOG_LIKELY
        self.seeks_feasible = bool(models.violations) and not is_likely.any()
        self._utility = Utility.around(self._means, is_likely, self._plausible())
        self._samples = sample_posterior(
            models, points, _POSTERIOR_SAMPLES, int(rng.integers(_SEEDS))
        )

    def _plausible(self) -> Floats:
        """Return the expected objectives of random points that may be feasible, shape (N, M)."""
        rows = self._space.at(self._rng.random((_PLAUSIBLE_OF, len(self._space.knobs))))
        rows = self._candidates.fresh(rows)
        if not len(rows):
            return self._means[:0]
        posterior = self._models.posterior(self._space.coordinates(rows))
        return posterior.objective_means[posterior.log_feasible() > _LOG_PLAUSIBLE]

    def _log_gains(self, samples: PosteriorSamples, levels: Levels) -> tuple[Floats, Floats]:
        """Return the log of each row's expected gain, and the probability that it does not work.

        `levels` has shape (N, D), both results (N,).
        """
        x = self._space.coordinates(levels)
        log_works = samples.models.log_works(x)
        if self.seeks_feasible:
            return samples.log_lowering(x) + log_works, -np.expm1(log_works)
        means, sds = samples.predict(x)
        log_feasible = samples.log_feasible(x, log_works)
        gains = self._utility.log_gains(means, sds, samples.fronts, log_feasible)
        return gains, -np.expm1(log_works)

    def share(self, log_gain: float) -> float | None:
        """Return a gain as a share of the utility now; None while there is none."""
        utility = self._utility.of(self._means[self._log_feasible > _LOG_LIKELY])
        return math.exp(log_gain) / utility if utility > 0.0 else None

    def best_new(
        self, warm: Point | None, costs: Costs, std_scale: float = 1.0
    ) -> tuple[Point, float] | None:
        """Return the new point that gains the most per second, with the log of its gain.

        Standard deviations are taken `std_scale` times as wide. None where no point is left.
        """
        pool = self._candidates.pool(self._rng, self._good_points(), warm)
        if not len(pool):
            return None
        samples = self._samples.with_std_scale(std_scale)

        def gain(rows: Levels, after: Sequence[Levels] = ()) -> Floats:
            """Return gains, once rows `after` were evaluated and turned out as predicted.

            A crash costs a launch more, so what may crash has to gain more.
            """
            points = [self._space.point(row) for row in after]
            after_them = samples.fantasize(points) if points else samples
            gains, crash_risk = self._log_gains(after_them, rows)
            return gains - np.log1p(crash_risk * costs.launch_s / costs.evaluation_s)

        pool, gains = self._local_search(pool, gain, warm)
        warm_levels = None if warm is None else self._space.levels_of(warm)
        row = choose_row(self._space, pool, gains, gain, warm_levels, costs)
        (log_gain,), _ = self._log_gains(samples, row[None])
        return self._space.point(row), float(log_gain)

    def _good_points(self) -> list[Point]:
        """Return the non-dominated of the points that may be feasible, or else the likeliest."""
        likely = np.flatnonzero(self._log_feasible > math.log(0.3))
        if not len(likely):
            return [self._points[int(np.argmax(self._log_feasible))]]
        order = np.argsort(self._means[likely, 0])
        front: list[int] = []
        for index in likely[order]:
            if not any(bool(np.all(self._means[k] <= self._means[index])) for k in front):
                front.append(int(index))
        return [self._points[index] for index in front]

    def _local_search(
        self,
        pool: Levels,
        gain: Callable[[Levels], Floats],
        warm: Point | None,
    ) -> tuple[Levels, Floats]:
        """Add the neighbours of the best rows, and of the best on the warm server, a few times."""
        gains = gain(pool)
        for _ in range(_CLIMBS):
            tops = [pool[np.argsort(-gains)[:_CLIMBERS]]]
            if warm is not None and self._space.restarting.any():
                warm_levels = self._space.levels_of(warm)
                restarting = self._space.restarting
                is_warm = np.all(pool[:, restarting] == warm_levels[restarting], axis=1)
                tops.append(pool[is_warm][np.argsort(-gains[is_warm])[:_CLIMBERS]])
            around = self._candidates.fresh(self._space.neighbours(np.concatenate(tops)))
            added = around[~_rows_in(around, pool)]
            if not len(added):
                break
            pool = np.concatenate([pool, added])
            gains = np.concatenate([gains, gain(added)])
        return pool, gains

    def best_repeat(
        self, working: Sequence[Point], rate: Callable[[tuple[Point, float]], float]
    ) -> tuple[Point, float] | None:
        """Return the point whose place on the front matters most and is least decided.

        The value of a repeat is the change of the front with or without the point, times the
        probability that its feasibility is misjudged now, times a part of the share of doubt that a
        repeat removes. Points compete by value per second, like `rate`.
        """
        if not self._models.violations:
            return None
        means = self._means[: len(working)]
        probability = np.exp(self._log_feasible[: len(working)])
        counted, removable = probability > 0.5, self._removable_doubt()
        options: list[tuple[Point, float]] = []
        for index in np.flatnonzero((probability > _UNDECIDED[0]) & (probability < _UNDECIDED[1])):
            others = counted.copy()
            others[index] = False
            without = self._utility.of(means[others])
            others[index] = True
            added = self._utility.of(means[others]) - without
            wrong = min(probability[index], 1.0 - probability[index])
            value = _REPEAT_SHARE * added * wrong * removable[index]
            if value > 0.0:
                options.append((working[int(index)], math.log(value)))
        return max(options, key=rate, default=None)

    def _removable_doubt(self) -> Floats:
        """Return the share of doubt about the constraints that a repeat removes, shape (N,)."""
        noises = np.array([model.noise_sd for model in self._models.violations])
        variances = self._violation_sds**2
        shares: Floats = (variances / (variances + noises**2)).max(axis=1)
        return shares


def _rows_in(rows: Levels, others: Levels) -> Flags:
    """Say of each row (N, D) whether it is among others (K, D), shape (N,)."""
    names = {row.tobytes() for row in others}
    return np.array([row.tobytes() in names for row in rows], dtype=np.bool_)
