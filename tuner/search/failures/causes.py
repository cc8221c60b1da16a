"""Failure causes: options that failed for the same root twice, and that nothing more is asked of.

A Gaussian process learns from failures where numbers go wrong, such as too much memory. It needs
several of them, and each costs a launch. An option that cannot work at all here, such as a
quantization without its kernels, says so in its log: the same root again and again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tuner.search.observation import Observation
from tuner.search.space import Point, Space, Value

Option: TypeAlias = tuple[str, Value]
Options: TypeAlias = frozenset[Option]

# Numbers, addresses and paths differ from one launch to the next under the same root.
_VARIES = re.compile(r"0x[0-9a-fA-F]+|/[\w./-]+|\d[\d.,:]*")


@dataclass(frozen=True, slots=True)
class FailureCauses:
    """Combinations of options that are blamed for failures.

    The suspects of a failure are its options that have never worked. Once two failures with the
    same root share suspects, these are blamed together. One failure with several suspects puts
    their combination aside, so that the next launch tells them apart, until all but one have
    worked. What contains such a combination is ruled out.
    """

    blamed: frozenset[Options]
    aside: frozenset[Options] = frozenset()

    @classmethod
    def of(cls, space: Space, observations: Sequence[Observation]) -> FailureCauses:
        """Return the causes that the observations show; a failure without `cause` shows none."""
        blamed: set[Options] = set()
        aside: set[Options] = set()
        worked = _options_that_work(space, observations)
        failures = [o for o in observations if not o.works and o.cause is not None]
        for _, group in itertools.groupby(sorted(failures, key=_root), key=_root):
            suspects = [_options(space, o.point) - worked for o in group]
            aside |= {one for one in suspects if len(one) > 1}
            blamed |= _shared(suspects)
        return cls(frozenset(blamed), frozenset(aside))

    def rules_out(self, point: Point) -> bool:
        """Say whether nothing is to be asked of a point for now."""
        return self.blames(point) or _has_any(point, self.aside)

    def blames(self, point: Point) -> bool:
        """Say whether a point has options that have failed twice for the same root."""
        return _has_any(point, self.blamed)


def root_of(reason: str) -> str:
    """Return a reason without what differs between launches with the same root."""
    return _VARIES.sub("#", reason)


def _has_any(point: Point, combinations: frozenset[Options]) -> bool:
    if not combinations:
        return False
    values = set(point.items())
    return any(options <= values for options in combinations)


def _root(observation: Observation) -> str:
    return root_of(observation.cause or "")


def _options(space: Space, point: Point) -> Options:
    """Return the values of the active knobs that have options rather than numbers."""
    active = space.active(space.complete(point))
    return frozenset(
        (knob.name, active[knob.name])
        for knob in space.knobs
        if knob.is_option and knob.name in active
    )


def _options_that_work(space: Space, observations: Sequence[Observation]) -> Options:
    working = (_options(space, o.point) for o in observations if o.works)
    return frozenset(itertools.chain.from_iterable(working))


def _shared(suspects: Sequence[Options]) -> set[Options]:
    """Return what each two failures have in common, the least of it; nothing if that is nothing."""
    shared = {one & other for one, other in itertools.combinations(suspects, 2)} - {frozenset()}
    return {options for options in shared if not any(less < options for less in shared)}
