"""Search space: knobs with finitely many values, as points of a unit cube.

D is the number of knobs. A row of levels holds the index of a value for each knob; rows of levels
and of coordinates have shape (N, D).

A knob that exists only under a choice of another one (the draft length of a speculative method) is
inactive elsewhere. It then has its first value, so that points that differ in nothing that counts
are one point.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Value: TypeAlias = bool | int | float | str
Point: TypeAlias = Mapping[str, Value]
Key: TypeAlias = tuple[float, ...]
Floats: TypeAlias = NDArray[np.float64]
Levels: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

_RANGE_STEPS = 256  # a continuous range is searched on this grid
_COARSER = 4  # times as far is the next neighbour on a fine grid


@dataclass(frozen=True, slots=True)
class Condition:
    """Which value of another knob a knob needs to exist."""

    knob: str
    value: Value


@dataclass(frozen=True, slots=True)
class Knob:
    """One thing that can be set, and each of the values it can have.

    Attributes:
        name: its name in a point.
        values: ascending numbers, or options in any order.
        ordered: whether near values do alike; options such as names do not.
        log: whether equal ratios count as equal distances.
        restarts: whether changing it costs a launch.
        condition: what has to be chosen for it to exist; None if it always does.
        discrete: whether one of its numbers may fail by itself, as a name may: how many GPUs.
    """

    name: str
    values: tuple[Value, ...]
    ordered: bool = True
    log: bool = False
    restarts: bool = False
    condition: Condition | None = None
    discrete: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"knob '{self.name}' has no values")
        if not self.ordered:
            return
        numbers = [float(value) for value in self.values]
        if any(low >= high for low, high in itertools.pairwise(numbers)):
            raise ValueError(f"knob '{self.name}': values must ascend, found {self.values}")
        if self.log and numbers[0] <= 0:
            raise ValueError(f"knob '{self.name}': log needs values above 0")

    @classmethod
    def between(
        cls,
        name: str,
        low: float,
        high: float,
        *,
        log: bool = False,
        restarts: bool = False,
        condition: Condition | None = None,
    ) -> Knob:
        """Return a knob for a continuous range, which is searched on a fine grid."""
        grid = np.geomspace if log else np.linspace
        values = [low, *map(float, grid(low, high, _RANGE_STEPS + 1)[1:-1]), high]
        return cls(name, tuple(values), log=log, restarts=restarts, condition=condition)

    @property
    def is_option(self) -> bool:
        """Whether a failure may be due to one of its values, rather than to much or little."""
        return self.discrete or not self.ordered

    def coordinate(self, value: Value) -> float:
        """Return where a value lies: 0 to 1 between the ends, or an option's index."""
        if not self.ordered:
            return float(self.values.index(value))
        low, high, at = float(self.values[0]), float(self.values[-1]), float(value)
        if low == high:
            return 0.0
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


class Space:
    """Every combination of the knobs' values.

    Attributes:
        knobs: in the order of the columns.
        unordered: which knobs have options rather than numbers, shape (D,).
        restarting: which knobs cost a launch when they change, shape (D,).
    """

    def __init__(self, knobs: Sequence[Knob]) -> None:
        if not knobs:
            raise ValueError("there is no knob to search over")
        names = [knob.name for knob in knobs]
        if len(set(names)) < len(names):
            raise ValueError(f"knobs are named twice: {names}")
        self.knobs = tuple(knobs)
        self.unordered = np.array([not knob.ordered for knob in knobs])
        self.restarting = np.array([knob.restarts for knob in knobs])
        self._sizes = np.array([len(knob.values) for knob in knobs])
        self._grids = [np.array([k.coordinate(v) for v in k.values]) for k in knobs]
        self._conditions = [
            (column, *self._place(knob.condition, names[:column]))
            for column, knob in enumerate(knobs)
            if knob.condition is not None
        ]

    @property
    def size(self) -> int:
        """How many combinations of levels there are, with those of inactive knobs."""
        return math.prod(int(size) for size in self._sizes)

    @property
    def sizes(self) -> Levels:
        """How many values each knob has, shape (D,)."""
        return self._sizes

    def _place(self, condition: Condition, before: Sequence[str]) -> tuple[int, int]:
        """Return the column and the level that a condition names; `before` are earlier knobs."""
        if condition.knob not in before:
            raise ValueError(f"the condition '{condition.knob}' is no earlier knob")
        column = before.index(condition.knob)
        return column, self.knobs[column].values.index(condition.value)

    def canonical(self, levels: Levels) -> Levels:
        """Return rows of levels (N, D) with every inactive knob at its first value."""
        if not self._conditions:
            return levels
        result = levels.copy()
        for column, parent, level in self._conditions:  # a knob stands after what it depends on
            result[result[:, parent] != level, column] = 0
        return result

    def complete(self, point: Point) -> Point:
        """Return a point in which each inactive knob has its first value, named or not."""
        if not self._conditions:
            return point
        values = dict(point)
        for knob in self.knobs:
            if knob.condition is not None and values[knob.condition.knob] != knob.condition.value:
                values[knob.name] = knob.values[0]
        return values

    def active(self, point: Point) -> dict[str, Value]:
        """Return a point's values without those of inactive knobs."""
        return {
            knob.name: point[knob.name]
            for knob in self.knobs
            if knob.condition is None or point[knob.condition.knob] == knob.condition.value
        }

    def key(self, point: Point) -> Key:
        """Return a key that is the same for equal points, despite rounding of numbers.

        Raises `KeyError` for an active knob without a value.
        """
        values = self.complete(point)
        return tuple(round(knob.coordinate(values[knob.name]), 9) for knob in self.knobs)

    def coordinates_of(self, points: Sequence[Point]) -> Floats:
        """Return coordinates (N, D) of points, which need not lie on the grid."""
        whole = [self.complete(point) for point in points]
        rows = [[knob.coordinate(point[knob.name]) for knob in self.knobs] for point in whole]
        return np.array(rows, dtype=np.float64).reshape(len(points), len(self.knobs))

    def coordinates(self, levels: Levels) -> Floats:
        """Return coordinates (N, D) of rows of levels (N, D)."""
        return np.column_stack([grid[levels[:, k]] for k, grid in enumerate(self._grids)])

    def levels_of(self, point: Point) -> Levels:
        """Return the levels nearest to a point, shape (D,)."""
        values = self.complete(point)
        nearest = [
            int(np.argmin(np.abs(grid - knob.coordinate(values[knob.name]))))
            for knob, grid in zip(self.knobs, self._grids, strict=True)
        ]
        return np.array(nearest, dtype=np.int64)

    def point(self, levels: Levels) -> dict[str, Value]:
        """Return the point at one row of levels (D,)."""
        pairs = zip(self.knobs, levels, strict=True)
        return {knob.name: knob.values[int(level)] for knob, level in pairs}

    def everything(self) -> Levels:
        """Return every distinct row of levels (N, D); only for small spaces."""
        axes = [np.arange(size) for size in self._sizes]
        rows = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        return np.unique(self.canonical(rows), axis=0) if self._conditions else rows

    def at(self, unit: Floats) -> Levels:
        """Return the levels (N, D) of rows from [0, 1), each value of a knob equally likely."""
        levels: Levels = np.minimum((unit * self._sizes).astype(np.int64), self._sizes - 1)
        return self.canonical(levels)

    def neighbours(self, levels: Levels) -> Levels:
        """Return each row (N, D) with one knob a few values off, or at another option.

        That is one or two values; of a fine grid also more of them, up to a quarter of its range.
        """
        rows = [levels]
        for k, knob in enumerate(self.knobs):
            for step in _steps(len(knob.values)) if knob.ordered else range(1, len(knob.values)):
                moved = levels.copy()
                moved[:, k] += step
                if not knob.ordered:
                    moved[:, k] %= len(knob.values)
                rows.append(moved[(moved[:, k] >= 0) & (moved[:, k] < len(knob.values))])
        return np.unique(self.canonical(np.concatenate(rows)), axis=0)


def _steps(values: int) -> list[int]:
    reaches = [1, 2]
    while _COARSER * reaches[-1] <= values / 4:
        reaches.append(_COARSER * reaches[-1])
    return [sign * reach for reach in reaches for sign in (-1, 1)]
