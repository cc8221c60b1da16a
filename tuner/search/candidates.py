"""Candidates: all points of a small space, else random ones and ones near good ones.

Rows of levels have shape (N, D): N candidates, D knobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tuner.search.space import Levels, Point, Space

_EVERYTHING = 3000
_RANDOM = 1000
# Where little is possible, more rows are drawn until so many are, or so often.
_FEWEST = 250
_DRAWS = 40
_WARM = 500
_NEAR_EACH = 40
_NEAR_MOST = 800


class Candidates:
    """Distinct points that are possible and not excluded."""

    def __init__(
        self, space: Space, is_possible: Callable[[Point], bool], excluded: Iterable[Point]
    ) -> None:
        self._space = space
        self._is_possible = is_possible
        self._is_allowed = {space.levels_of(point).tobytes(): False for point in excluded}

    def pool(self, rng: np.random.Generator, good: Sequence[Point], warm: Point | None) -> Levels:
        """Return rows of levels (N, D): anywhere, near `good`, and on the `warm` server."""
        space = self._space
        if space.size <= _EVERYTHING:
            return self.fresh(space.everything())
        rows = [self._anywhere(rng)]
        if good:
            rows.append(self._near(rng, good))
        if warm is not None:
            at = space.levels_of(warm)
            same = space.at(rng.random((_WARM, len(space.knobs))))
            for moved in [same, *([rows[1].copy()] if good else [])]:
                moved[:, space.restarting] = at[space.restarting]
                rows.append(space.canonical(moved))
        return self.fresh(np.concatenate(rows))

    def _anywhere(self, rng: np.random.Generator) -> Levels:
        """Return random rows of levels, at least a few hundred of them allowed if there are."""
        found = [self._draw(rng)]
        allowed = len(self.fresh(found[0]))
        while allowed < _FEWEST and len(found) < _DRAWS:
            found.append(self.fresh(self._draw(rng)))
            allowed += len(found[-1])
        return np.concatenate(found)

    def _draw(self, rng: np.random.Generator) -> Levels:
        return self._space.at(rng.random((_RANDOM, len(self._space.knobs))))

    def _near(self, rng: np.random.Generator, good: Sequence[Point]) -> Levels:
        """Return copies of good points, about two knobs of each changed, by any order of size."""
        space = self._space
        each = min(_NEAR_EACH, _NEAR_MOST // len(good))
        rows = np.repeat(np.stack([space.levels_of(p) for p in good]), max(each, 1), axis=0)
        change = rng.random(rows.shape) < 2.0 / rows.shape[1]
        reach = np.ceil(0.5 * space.sizes ** rng.random(rows.shape)).astype(np.int64)
        reach *= rng.choice((-1, 1), rows.shape)
        near = np.clip(rows + reach, 0, space.sizes - 1)
        anything = space.at(rng.random(rows.shape))
        moved = np.where(space.unordered, anything, near)
        return space.canonical(np.where(change, moved, rows))

    def fresh(self, levels: Levels) -> Levels:
        """Return the distinct rows of `levels` (N, D) that may be proposed."""
        distinct = np.unique(levels, axis=0)
        keep = [self._allowed(row) for row in distinct]
        return distinct[np.array(keep, dtype=np.bool_)]

    def _allowed(self, row: Levels) -> bool:
        name = row.tobytes()
        if name not in self._is_allowed:
            self._is_allowed[name] = self._is_possible(self._space.point(row))
        return self._is_allowed[name]
