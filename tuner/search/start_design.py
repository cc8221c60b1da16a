"""Start design: a few points on the default's launch, each other option of a launch, Sobol points.

Options are changed one at a time. What each does by itself is then known, beside the one point that
is sure to make sense; a launch at random often combines several that waste a good one among them.
Beside a default that fails little else works, so the first point that does takes its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from tuner.search.observation import Observation
from tuner.search.space import Knob, Levels, Point, Space

PER_LAUNCH = 4
_MOST_STARTS = 8  # two launches of four: more of them tell a model less than it does by deciding
_MOST_OPTIONS = 8
_TRIES = 8
_MOST_ROWS = 2**14  # are looked at where few points are possible
_TRIES_PER_LAUNCH = 64  # after so many impossible points on a launch, another one is taken


class StartDesign:
    """The points to evaluate, beside the default, before a model decides.

    `count` are spread over the space; None for up to eight, and the options of a launch with them.
    """

    def __init__(
        self,
        space: Space,
        count: int | None,
        seed: int,
        is_possible: Callable[[Point], bool],
        default: Point | None,
    ) -> None:
        self._space = space
        self._has_options = count is None
        self._count = min(2 * (len(space.knobs) + 1), _MOST_STARTS) if count is None else count
        self._seed = seed
        self._is_possible = is_possible
        self._default = default
        self._beside_default = self._beside(default)

    def points(
        self, observations: Sequence[Observation], is_ruled_out: Callable[[Point], bool]
    ) -> list[Point]:
        """Return the design in its order, without what `is_ruled_out` names."""
        spread, options = self._beside_default
        works = next((o.point for o in observations if o.works), None)
        has_failed = bool(options) and self._default_fails(observations)
        if has_failed and works is not None:
            spread, options = self._beside(works)
        spread = [point for point in spread if not is_ruled_out(point)]
        options = [point for point in options if not is_ruled_out(point)][:_MOST_OPTIONS]
        count = max(self._count, min(PER_LAUNCH, len(spread)) + len(options))
        beside, elsewhere = spread[:PER_LAUNCH], spread[PER_LAUNCH:]
        if has_failed and works is None:
            return [*grown_first(self._space, options, self._default), *elsewhere][:count]
        return [*beside, *options, *elsewhere][:count]

    def _beside(self, base: Point | None) -> tuple[list[Point], list[Point]]:
        """Return the points that are spread, the first on the launch of `base`, and its options."""
        # as many again stand by for those that turn out to be known to fail
        count = 2 * self._count
        spread = start_points(self._space, count, self._seed, self._is_possible, base)
        options = option_points(self._space, self._is_possible, base) if self._has_options else []
        return spread, options

    def _default_fails(self, observations: Sequence[Observation]) -> bool:
        key = None if self._default is None else self._space.key(self._default)
        own = [o.works for o in observations if self._space.key(o.point) == key]
        return bool(own) and not any(own)


def start_points(
    space: Space,
    count: int,
    seed: int,
    is_possible: Callable[[Point], bool],
    default: Point | None,
) -> list[Point]:
    """Return up to `count` space-filling points that are possible.

    The first few share the default's launch, the next few another one, and so on: each launch
    serves several points.
    """
    from scipy.stats import qmc  # a third of a second, which a study that goes on does not need

    sobol = qmc.Sobol(len(space.knobs), scramble=True, seed=seed)
    exponent = int(np.ceil(np.log2(max(count * _TRIES, 2))))
    design = _Design(space, is_possible, default)
    drawn = 0
    while len(design.points) < count and drawn < _MOST_ROWS:
        rows = space.at(sobol.random_base2(exponent if drawn == 0 else int(np.log2(drawn))))
        drawn += len(rows)
        for row in rows:
            if len(design.points) == count:
                break
            design.consider(row)
        if drawn >= space.size:
            break
    return design.points


def option_points(
    space: Space, is_possible: Callable[[Point], bool], default: Point | None
) -> list[Point]:
    """Return the default with one option of a launch changed, for each that is possible.

    Of numbers of which one may fail by itself the next smaller and larger are taken. What exists
    only under an option has its middle value. The first of every knob comes before the second of
    any. Of a single option points that are spread over the space tell as much: then none.
    """
    if default is None:
        return []
    start = space.levels_of(default)
    turns = [
        [(column, level) for level in _other_levels(knob, int(start[column]))]
        for column, knob in enumerate(space.knobs)
        if knob.restarts and knob.is_option and knob.name in space.active(default)
    ]
    points: list[Point] = []
    for column, level in (one for turn in itertools.zip_longest(*turns) for one in turn if one):
        row = start.copy()
        row[column] = level
        for child, knob in enumerate(space.knobs):
            if knob.condition is not None and knob.condition.knob == space.knobs[column].name:
                row[child] = (len(knob.values) - 1) // 2
        point = space.point(space.canonical(row[None])[0])
        if point not in points and is_possible(point):
            points.append(point)
    return points if len(points) > 1 else []


def grown_first(space: Space, points: Sequence[Point], default: Point | None) -> list[Point]:
    """Return points with those first that have more of a number than the default: more GPUs."""
    if default is None:
        return list(points)
    ordered = np.array([knob.ordered and knob.condition is None for knob in space.knobs])
    start = space.levels_of(default)

    def has_grown(point: Point) -> bool:
        return bool(np.any((space.levels_of(point) > start)[ordered]))

    return sorted(points, key=lambda point: not has_grown(point))


def _other_levels(knob: Knob, own: int) -> list[int]:
    if knob.ordered:
        return [level for level in (own + 1, own - 1) if 0 <= level < len(knob.values)]
    return [level for level in range(len(knob.values)) if level != own]


class _Design:
    """The points so far, and the launch that the next one shares."""

    def __init__(
        self, space: Space, is_possible: Callable[[Point], bool], default: Point | None
    ) -> None:
        self.points: list[Point] = []
        self._space = space
        self._is_possible = is_possible
        # a launch serves several points only where something can change in a running server
        self._is_shared = not bool(space.restarting.all())
        self._launch = None if default is None else space.levels_of(default)
        self._default = default
        self._failed = 0

    def consider(self, row: Levels) -> None:
        """Add the point at a row of levels (D,), moved to the present launch, if it is possible."""
        if not self._is_shared:
            self._launch = None
        moved = row.copy()
        if self._launch is not None:
            moved[self._space.restarting] = self._launch[self._space.restarting]
            moved = self._space.canonical(moved[None])[0]
        point = self._space.point(moved)
        is_default = not self._is_shared and point == self._default
        if is_default or point in self.points or not self._is_possible(point):
            self._failed += 1
            if self._failed >= _TRIES_PER_LAUNCH:
                self._launch, self._failed = None, 0
            return
        self.points.append(point)
        self._failed = 0
        is_full = len(self.points) % PER_LAUNCH == 0
        self._launch = None if is_full else moved
