"""Functions that are not vLLM, in four families: five knobs, crashes, 4 % of the space feasible.

An instance of a family is drawn from a seed. In this file N is the number of points; coordinates
are those of `tuner.search.space`: 0 to 1, or the index of an option.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuner.pareto import hypervolume, pareto_front, reference_point
from tuner.search.observation import Observation
from tuner.search.space import Flags, Floats, Knob, Levels, Point, Space

FEASIBLE_SHARE = 0.04  # of the whole space
_OPTIONS = ("a", "b", "c")
SPACE = Space(
    [
        Knob("tokens", tuple(2**k for k in range(8, 16)), log=True),
        Knob("seqs", tuple(dict.fromkeys(np.geomspace(4, 512, 33).astype(int).tolist())), log=True),
        Knob("option", _OPTIONS, ordered=False),
        Knob.between("memory", 0.3, 0.95),
        Knob.between("power", 150.0, 700.0),
    ]
)
_OPTION = 2
_COARSE = 8  # every so many levels of a fine knob are looked at first, for the true front
_FINE = 64  # a knob with more levels than this
_MOST_REFINED = 300  # points of that front, beside which finer levels are looked at
_MOST_ROWS = 2**16  # of a sample that the bounds are placed by
_LEAST_EXTENT = 0.2  # of a front in each log: a narrower one is hidden by the noise


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A function before its bounds are placed; each part takes coordinates (N, 5).

    Attributes:
        crash: a point crashes where this is among the greatest, shape (N,).
        objectives: logs, to be minimised, shape (N, 2).
        limited: logs of what the constraints bound, shape (N, 2).
        crash_share: of the space.
        noise: standard deviations of the objectives' and the limited metrics' logs.
    """

    crash: Callable[[Floats], Floats]
    objectives: Callable[[Floats], Floats]
    limited: Callable[[Floats], Floats]
    crash_share: float
    noise: tuple[float, float, float, float]


def _served(rng: np.random.Generator) -> Shape:
    """Return something like a server: throughput saturates, waits grow near its capacity.

    Crashes are where memory is full, beside the best throughput.
    """
    speed, weights = rng.uniform(0.7, 1.0, 3), rng.uniform(0.2, 0.6, 3)
    knee, step = rng.uniform(0.3, 0.7), rng.uniform(0.5, 1.5)
    tilt = rng.uniform(0.3, 1.2, 4)

    def parts(x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        option = x[:, _OPTION].astype(int)
        room = np.maximum(x[:, 3] + 0.4 - weights[option], 0.02)
        batch = np.minimum(4.5 * x[:, 1], np.log(60.0 * room))
        clock = np.log(0.35 + 0.65 * (1.0 - np.exp(-3.0 * (x[:, 4] + 0.1)))) - np.log(speed[option])
        work = np.logaddexp(0.0, batch - 4.0 * knee)
        return batch, clock, work, 2.0 * x[:, 0]

    def objectives(x: Floats) -> Floats:
        batch, clock, work, chunk = parts(x)
        rate = batch - work + clock - 0.1 * (chunk - 1.0) ** 2
        power = np.log(0.3 + 0.7 * x[:, 4] ** 1.3)
        return np.column_stack([power - rate, -rate])

    def limited(x: Floats) -> Floats:
        batch, clock, work, chunk = parts(x)
        between = work - clock + 0.4 * tilt[0] * chunk
        wait = 2.2 * np.exp(-batch + tilt[1]) + step * np.exp(-chunk) - 0.7 * clock
        return np.column_stack([between, wait])

    def crash(x: Floats) -> Floats:
        return x[:, 3] + 0.35 * tilt[2] * x[:, 0] ** 2 + weights[x[:, _OPTION].astype(int)]

    return Shape(crash, objectives, limited, rng.uniform(0.1, 0.3), (0.02, 0.02, 0.03, 0.06))


def _bent(rng: np.random.Generator) -> Shape:
    """Return a curved band of feasible points inside the space; each option shifts the band."""
    phase, shift = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(-0.15, 0.15, 3)
    turns, effects = rng.uniform(2.5, 4.5), rng.uniform(-0.3, 0.3, (2, 3))
    slopes, centre = rng.uniform(-1.0, 1.0, (2, 4)), rng.uniform(0.2, 0.8, 4)
    crash_to = rng.normal(size=4)

    def objectives(x: Floats) -> Floats:
        u, option = np.delete(x, _OPTION, axis=1), x[:, _OPTION].astype(int)
        along = u @ slopes[0] + 0.6 * (u[:, 0] - centre[0]) * (u[:, 2] - centre[2])
        across = -0.6 * (u @ slopes[0]) + u @ slopes[1] ** 2 + 0.8 * (u[:, 1] - centre[1]) ** 2
        return np.column_stack([along, across]) * 0.7 + effects[:, option].T

    def limited(x: Floats) -> Floats:
        u, option = np.delete(x, _OPTION, axis=1), x[:, _OPTION].astype(int)
        curve = 0.5 + 0.3 * np.sin(turns * u[:, 0] + phase) + shift[option]
        band = np.log(0.05 + np.abs(u[:, 2] - curve))
        bowl = (
            2.0 * ((u[:, 1] - centre[1]) ** 2 + u[:, 3] * (1.0 - u[:, 1])) + slopes[1, 3] * u[:, 3]
        )
        return np.column_stack([band, bowl])

    return Shape(
        lambda x: np.sin(2.0 * np.delete(x, _OPTION, axis=1)) @ crash_to,
        objectives,
        limited,
        rng.uniform(0.1, 0.3),
        (0.02, 0.03, 0.04, 0.05),
    )


def _islands(rng: np.random.Generator) -> Shape:
    """Return three feasible regions apart from each other, which trade the objectives off."""
    centres, options = rng.uniform(0.1, 0.9, (3, 4)), rng.permutation(3)
    widths, tops = rng.uniform(0.25, 0.4, (3, 4)), rng.uniform(0.8, 1.0, 3)
    slopes, crash_at = rng.normal(size=4), rng.uniform(0.0, 1.0, 4)
    slopes /= np.linalg.norm(slopes)

    def near(x: Floats) -> Floats:
        u, option = np.delete(x, _OPTION, axis=1), x[:, _OPTION].astype(int)
        total = np.zeros(len(x))
        for k in range(3):
            far = (((u - centres[k]) / widths[k]) ** 2).sum(axis=1)
            total += tops[k] * np.exp(-0.5 * far) * np.where(option == options[k], 1.0, 0.35)
        return total

    def objectives(x: Floats) -> Floats:
        u = np.delete(x, _OPTION, axis=1) - 0.5
        bow = 0.4 * (u**2).sum(axis=1)
        turn = 0.2 * np.array([-1.0, 0.0, 1.0])[x[:, _OPTION].astype(int)]
        return np.column_stack([u @ slopes + turn + bow, -(u @ slopes) - turn + 1.5 * bow])

    def limited(x: Floats) -> Floats:
        u = np.delete(x, _OPTION, axis=1)
        return np.column_stack([-np.log(0.05 + near(x)), 0.8 * u[:, 0] * u[:, 3] + 0.5 * u[:, 2]])

    return Shape(
        lambda x: -((np.delete(x, _OPTION, axis=1) - crash_at) ** 2).sum(axis=1),
        objectives,
        limited,
        rng.uniform(0.1, 0.2),
        (0.02, 0.03, 0.03, 0.05),
    )


def _corner(rng: np.random.Generator) -> Shape:
    """Return a feasible region at edges of several knobs, whose best points are beside crashes."""
    ends = rng.integers(0, 2, 4).astype(float)
    powers, effects = rng.uniform(0.7, 2.0, 4), rng.uniform(0.0, 0.5, (2, 3))
    mix, couple = rng.uniform(0.3, 1.0, (4, 4)), rng.uniform(0.5, 1.5, 2)

    def distances(x: Floats) -> Floats:
        return np.abs(np.delete(x, _OPTION, axis=1) - ends) ** powers

    def objectives(x: Floats) -> Floats:
        d, option = distances(x), x[:, _OPTION].astype(int)
        cost = d @ mix[0] * 0.5 - couple[0] * d[:, 2] * d[:, 3]
        speed = -(d @ mix[1]) * 0.6 + couple[1] * d[:, 1] * (1.0 - d[:, 0])
        return np.column_stack([cost, speed]) + 0.5 * effects[:, option].T

    def limited(x: Floats) -> Floats:
        d, option = distances(x), x[:, _OPTION].astype(int)
        product = np.log1p(6.0 * (d[:, 0] + 0.1) * (d[:, 1] + 0.2)) + 0.6 * d[:, 2]
        return np.column_stack(
            [product + effects[0, option], 1.2 * d @ mix[2] - effects[1, option]]
        )

    return Shape(
        lambda x: -(distances(x) @ mix[3]),
        objectives,
        limited,
        rng.uniform(0.1, 0.2),
        (0.02, 0.02, 0.04, 0.06),
    )


FAMILIES: dict[str, Callable[[np.random.Generator], Shape]] = {
    "served": _served,
    "bent": _bent,
    "islands": _islands,
    "corner": _corner,
}


class Foreign:
    """One function with its bounds and its true front."""

    def __init__(self, family: str, seed: int) -> None:
        """Draw the function, place its bounds, and look for its true front on the whole grid."""
        rng = np.random.default_rng([list(FAMILIES).index(family), seed])
        self._draw(FAMILIES[family], rng)
        while np.ptp(self.front, axis=0).min() < _LEAST_EXTENT:
            self._draw(FAMILIES[family], rng)
        self.reference = reference_point(self.front, extent_share=0.1)
        self._whole = hypervolume(self.front, self.reference)

    def _draw(
        self, family: Callable[[np.random.Generator], Shape], rng: np.random.Generator
    ) -> None:
        self._shape = family(rng)
        sample = SPACE.coordinates(SPACE.at(rng.random((_MOST_ROWS, len(SPACE.knobs)))))
        crash = self._shape.crash(sample)
        self._crash_bound = float(np.quantile(crash, 1.0 - self._shape.crash_share))
        self._bounds = _bounds(self._shape.limited(sample[crash <= self._crash_bound]), len(sample))
        self.front = self._true_front()

    def evaluate(self, point: Point, rng: np.random.Generator) -> Observation:
        """Measure a point, with noise."""
        x = SPACE.coordinates_of([point])
        noise = rng.standard_normal(4) * self._shape.noise
        if self._crashes(x)[0]:
            return Observation(point, works=False)
        objectives = self._shape.objectives(x)[0] + noise[:2]
        violations = self._shape.limited(x)[0] - self._bounds + noise[2:]
        return Observation(point, objectives=tuple(objectives), violations=tuple(violations))

    def share(self, points: list[Point]) -> float:
        """Return the share of the true front's hypervolume that points truly have."""
        x = SPACE.coordinates_of(points)
        good = x[self.is_feasible(x)]
        if not len(good):
            return 0.0
        return hypervolume(self._shape.objectives(good), self.reference) / self._whole

    def is_feasible(self, x: Floats) -> Flags:
        """Say of coordinates (N, 5) whether they truly work and meet both bounds, shape (N,)."""
        met: Flags = np.all(self._shape.limited(x) <= self._bounds, axis=1) & ~self._crashes(x)
        return met

    def _crashes(self, x: Floats) -> Flags:
        crashes: Flags = self._shape.crash(x) > self._crash_bound
        return crashes

    def _true_front(self) -> Floats:
        """Look at a coarse grid first, then at every value around points of the front on it."""
        axes = [_coarse(int(size)) for size in SPACE.sizes]
        rows = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        front, at = self._front_of(rows)
        at = at[:: max(1, len(at) // _MOST_REFINED)]
        wide = [k for k, size in enumerate(SPACE.sizes) if size > _FINE]
        around = np.arange(-_COARSE, _COARSE + 1)
        for k in wide:
            moved = np.repeat(at, len(around), axis=0)
            moved[:, k] = np.clip(moved[:, k] + np.tile(around, len(at)), 0, SPACE.sizes[k] - 1)
            at = np.unique(moved, axis=0)
        finer, _ = self._front_of(at)
        both = np.concatenate([front, finer])
        return both[pareto_front(both)]

    def _front_of(self, rows: Levels) -> tuple[Floats, Levels]:
        x = SPACE.coordinates(rows)
        met = self.is_feasible(x)
        values = self._shape.objectives(x[met])
        front = pareto_front(values)
        return values[front], rows[met][front]


def _coarse(size: int) -> Levels:
    return np.unique(np.append(np.arange(0, size, _COARSE if size > _FINE else 1), size - 1))


def _bounds(limited: Floats, whole: int) -> Floats:
    """Return the bounds (2,) that equal shares of rows (N, 2) meet; 4 % of all meet both."""
    low, high = 0.0, 1.0
    for _ in range(30):
        share = 0.5 * (low + high)
        bounds: Floats = np.quantile(limited, share, axis=0)
        met = float(np.all(limited <= bounds, axis=1).sum()) / whole
        low, high = (share, high) if met < FEASIBLE_SHARE else (low, share)
    return bounds
