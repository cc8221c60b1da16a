"""The search: what to evaluate next, given what was seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tuner.search.acquisition import Worth
from tuner.search.candidates import Candidates
from tuner.search.costs import Costs, learned_costs
from tuner.search.front import Member, distinct, front_of
from tuner.search.launch_choice import choose
from tuner.search.observation import Observation, Suggestion
from tuner.search.posterior import Models, learn
from tuner.search.posterior_samples import Drawn, drawn
from tuner.search.space import Floats, Levels, Point, Space
from tuner.search.start_design import start_points

CONFIDENCE = 0.95  # that a reported point meets every constraint
# When the best point promises less than this share, the models are asked again with their standard
# deviations so many times as wide: a stationary process is too sure of where the function bends.
IDLE_GAIN = 5e-4
_DOUBT = 3.0
_MOST_STARTS = 8  # two launches of four: more of them tell a model less than it does by deciding

# Of what a repeat is worth: the rest would be found out as well when the front is confirmed.
_REPEAT_SHARE = 0.2

_FRONT_DRAWS = 8
_CLIMBERS = 6
_CLIMBS = 3
_UNDECIDED = (0.02, 0.98)
_FEW_SEEDS = 2**31


class ExhaustedError(Exception):
    """Every possible point was evaluated."""


class Search:
    """Proposes points for noisy functions with constraints, where evaluations cost time.

    Attributes:
        space: the knobs.
        violations: how many constraints there are.
        default: the point to begin with.
        priors: points worth a try, from elsewhere.
        is_possible: says of a point, without evaluating it, whether it can work at all.
        seed: two searches with the same seed and observations propose the same.
        starts: how many points are spread over the space before a model decides.
    """

    def __init__(
        self,
        space: Space,
        *,
        violations: int,
        default: Point | None = None,
        priors: Sequence[Point] = (),
        is_possible: Callable[[Point], bool] = lambda _: True,
        seed: int = 0,
        starts: int | None = None,
    ) -> None:
        self._space = space
        self._violations = violations
        self._is_possible = is_possible
        self._seed = seed
        count = min(2 * (len(space.knobs) + 1), _MOST_STARTS) if starts is None else starts
        spread = start_points(space, count, seed, is_possible, default)
        self._plan = [
            *([] if default is None else [Suggestion(default, "default")]),
            *(Suggestion(point, "start") for point in spread),
            *(Suggestion(point, "prior") for point in priors if is_possible(point)),
        ]

    def propose(
        self,
        observations: Sequence[Observation],
        pending: Sequence[Point] = (),
        warm: Point | None = None,
    ) -> Suggestion:
        """Return what to evaluate next.

        `pending` points are under way, `warm` is what the running server was launched with. Raises
        `ExhaustedError` when no point is left.
        """
        tried = {self._space.key(o.point) for o in observations}
        tried |= {self._space.key(point) for point in pending}
        for planned in self._plan:
            if self._space.key(planned.point) not in tried:
                return planned
        rng = np.random.default_rng([self._seed, len(observations), len(pending)])
        known = [*(o.point for o in observations), *pending]
        candidates = Candidates(self._space, self._is_possible, known)
        models = learn(self._space, observations, self._violations)
        seen = distinct(self._space, observations)
        if models is None or not seen:
            return self._anything(candidates, rng, warm)
        believed = models.with_believed(pending)
        step = _Step(believed, [*seen, *pending], rng)
        costs = learned_costs(observations)

        def rate(found: tuple[Point, float]) -> float:
            return found[1] - math.log(self._seconds(found[0], warm, costs))

        best = step.best_new(candidates, warm, costs)
        repeat = step.best_repeat(seen, rate)
        if best is None and repeat is None:
            raise ExhaustedError("every possible point was evaluated")
        if repeat is not None and (best is None or rate(repeat) > rate(best)):
            return Suggestion(repeat[0], "repeat", step.share(repeat[1]))
        assert best is not None
        share = step.share(best[1])
        if share is None or share >= IDLE_GAIN:
            return Suggestion(best[0], "improvement", share)
        doubted = step.best_new(candidates, warm, costs, doubt=_DOUBT) or best
        return Suggestion(doubted[0], "doubt", share)

    def _seconds(self, point: Point, warm: Point | None, costs: Costs) -> float:
        restarting = self._space.restarting
        if not restarting.any():
            return costs.evaluation_s
        if warm is not None:
            at, of = self._space.levels_of(point), self._space.levels_of(warm)
            if bool(np.all(at[restarting] == of[restarting])):
                return costs.evaluation_s
        return costs.evaluation_s + costs.launch_s

    def front(
        self, observations: Sequence[Observation], confidence: float = CONFIDENCE
    ) -> list[Member]:
        """Return the evaluated points worth having, best first objective first."""
        models = learn(self._space, observations, self._violations)
        if models is None:
            return []
        return front_of(models, distinct(self._space, observations), confidence)

    def _anything(
        self, candidates: Candidates, rng: np.random.Generator, warm: Point | None
    ) -> Suggestion:
        pool = candidates.pool(rng, (), warm)
        if not len(pool):
            raise ExhaustedError("every possible point was evaluated")
        return Suggestion(self._space.point(rng.choice(pool)), "start")


class _Step:
    """One proposal: what is believed now, and what each further point would add."""

    def __init__(self, models: Models, seen: Sequence[Point], rng: np.random.Generator) -> None:
        self._models = models
        self._space = models.space
        self._seen = seen
        self._rng = rng
        beliefs = models.at(self._space.coordinates_of(seen))
        self._means = beliefs.objective_means
        self._violation_sds = beliefs.violation_sds
        self._log_feasible = beliefs.log_feasible()
        self._worth = Worth.around(self._means, self._log_feasible > math.log(0.5))
        self._drawn = drawn(models, seen, _FRONT_DRAWS, int(rng.integers(_FEW_SEEDS)))

    def _log_gains(self, draws: Drawn, levels: Levels) -> tuple[Floats, Floats]:
        """Return the log of what each row is expected to add to what is known to work.

        And the probability that it does not work at all.
        """
        x = self._space.coordinates(levels)
        means, sds = draws.at(x)
        chances = draws.models.chances_at(x)
        gains = self._worth.log_gains(means, sds, draws.fronts, chances.log_feasible())
        return gains, -np.expm1(chances.log_works)

    def share(self, log_gain: float) -> float | None:
        """Return a gain as a share of what there is now; None while there is nothing."""
        has = self._worth.of(self._means[self._log_feasible > math.log(0.5)])
        return math.exp(log_gain) / has if has > 0.0 else None

    def best_new(
        self, candidates: Candidates, warm: Point | None, costs: Costs, doubt: float = 1.0
    ) -> tuple[Point, float] | None:
        """Return the new point that brings the most per second, with the log of its gain.

        `doubt` is how many times as wide the standard deviations are taken.
        """
        pool = candidates.pool(self._rng, self._good(), warm)
        if not len(pool):
            return None
        draws = self._drawn.doubted(doubt)

        def gain(rows: Levels, after: Sequence[Levels] = ()) -> Floats:
            """Return gains, once some rows were evaluated and turned out as believed.

            A crash costs a launch more, so what may crash has to bring more.
            """
            points = [self._space.point(row) for row in after]
            after_them = draws.with_believed(points) if points else draws
            gains, crash_risk = self._log_gains(after_them, rows)
            return gains - np.log1p(crash_risk * costs.launch_s / costs.evaluation_s)

        pool, gains = self._climbed(candidates, pool, gain, warm)
        at = None if warm is None else self._space.levels_of(warm)
        row = choose(self._space, pool, gains, gain, at, costs)
        (log_gain,), _ = self._log_gains(draws, row[None])
        return self._space.point(row), float(log_gain)

    def _good(self) -> list[Point]:
        likely = np.flatnonzero(self._log_feasible > math.log(0.3))
        if not len(likely):
            return [self._seen[int(np.argmax(self._log_feasible))]]
        order = np.argsort(self._means[likely, 0])
        kept: list[int] = []
        for index in likely[order]:
            if not any(bool(np.all(self._means[k] <= self._means[index])) for k in kept):
                kept.append(int(index))
        return [self._seen[index] for index in kept]

    def _climbed(
        self,
        candidates: Candidates,
        pool: Levels,
        gain: Callable[[Levels], Floats],
        warm: Point | None,
    ) -> tuple[Levels, Floats]:
        """Add what lies around the best rows, and the best on the warm server, a few times."""
        gains = gain(pool)
        for _ in range(_CLIMBS):
            tops = [pool[np.argsort(-gains)[:_CLIMBERS]]]
            if warm is not None and self._space.restarting.any():
                at = self._space.levels_of(warm)
                restarting = self._space.restarting
                is_warm = np.all(pool[:, restarting] == at[restarting], axis=1)
                tops.append(pool[is_warm][np.argsort(-gains[is_warm])[:_CLIMBERS]])
            around = candidates.fresh(self._space.neighbours(np.concatenate(tops)))
            added = around[~_rows_in(around, pool)]
            if not len(added):
                break
            pool = np.concatenate([pool, added])
            gains = np.concatenate([gains, gain(added)])
        return pool, gains

    def best_repeat(
        self, seen: Sequence[Point], rate: Callable[[tuple[Point, float]], float]
    ) -> tuple[Point, float] | None:
        """Return the point whose standing on the front matters most and is least decided.

        What another evaluation is worth: what the front gains or loses with the point, times the
        probability of being wrong about it now, times the share of doubt that is removed, of which
        only a part counts. That is compared by the time that it takes, `rate`.
        """
        if not self._models.violations:
            return None
        means = self._means[: len(seen)]
        probability = np.exp(self._log_feasible[: len(seen)])
        counted, removable = probability > 0.5, self._removable()
        found: list[tuple[Point, float]] = []
        for index in np.flatnonzero((probability > _UNDECIDED[0]) & (probability < _UNDECIDED[1])):
            others = counted.copy()
            others[index] = False
            without = self._worth.of(means[others])
            others[index] = True
            added = self._worth.of(means[others]) - without
            wrong = min(probability[index], 1.0 - probability[index])
            value = _REPEAT_SHARE * added * wrong * removable[index]
            if value > 0.0:
                found.append((seen[int(index)], math.log(value)))
        return max(found, key=rate, default=None)

    def _removable(self) -> Floats:
        """Return the share of the doubt about the constraints that one more evaluation removes."""
        noises = np.array([model.noise_sd for model in self._models.violations])
        variances = self._violation_sds**2
        shares: Floats = (variances / (variances + noises**2)).max(axis=1)
        return shares


def _rows_in(rows: Levels, others: Levels) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    known = {row.tobytes() for row in others}
    return np.array([row.tobytes() in known for row in rows], dtype=np.bool_)
