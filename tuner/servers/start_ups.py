"""Launch deadline: how long a server may take to get ready, learned from those that did."""

from __future__ import annotations

import statistics

_LEAST_LAUNCHES = 3  # the first compiles kernels that the later ones find in a cache
_FACTOR = 5.0
_LEAST_S = 120.0
_LEAST_SO_FAR_S = 600.0  # while fewer are known: another precision is compiled anew


class StartUps:
    """The launches of one run. `most_s` is the deadline of the first one."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._took_s: list[float] = []

    def took(self, launch_s: float) -> None:
        """Record the start-up time of a server that became ready."""
        self._took_s.append(launch_s)

    @property
    def deadline_s(self) -> float:
        """Five times the median launch, at least two minutes, never more than what was asked for.

        Of fewer than three launches it is five times the longest, at least ten minutes. Otherwise a
        start that never ends would cost the half hour that a first one may need.
        """
        if not self._took_s:
            return self._most_s
        usual_s, least_s = statistics.median(self._took_s), _LEAST_S
        if len(self._took_s) < _LEAST_LAUNCHES:
            usual_s, least_s = max(self._took_s), _LEAST_SO_FAR_S
        return min(self._most_s, max(least_s, _FACTOR * usual_s))
