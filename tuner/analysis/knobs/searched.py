"""Searched configurations: all windows that the search measured of one count together.

All of them are on the same stretch of traffic. Two differ by some noise, energy by that of the
power sensor too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analysis.knobs.returned import key_of
from tuner.analysis.outcomes import energy_j, measured
from tuner.records import Measurement
from tuner.store.rows import TrialRow

# Relative differences within which two windows behaved the same.
_SAME_BEHAVIOUR = {"mean_tpot_ms": 0.01, "mean_ttft_ms": 0.05}
_WINDOW_NOISE = 0.01  # standard deviation of the energy from window to window, docs/h200.md
_NOISE_ERRORS = 3.0  # standard errors


@dataclass(frozen=True, slots=True)
class Searched:
    """What the search measured of a configuration: its first trial, with the means of `windows`."""

    trial: TrialRow
    windows: int

    def behaved_as(self, other: Searched) -> bool:
        """Say whether the mean latencies of both are the same."""
        one, two = self.trial.measurement, other.trial.measurement
        if one is None or two is None:
            return False
        ours, theirs = one.metrics, two.metrics
        return all(
            name in ours and abs(ours[name] - theirs.get(name, math.inf)) <= share * ours[name]
            for name, share in _SAME_BEHAVIOUR.items()
        )

    def equals(self, other: Searched) -> bool:
        """Say whether both behaved the same, with energies within the noise."""
        ours_j, theirs_j = energy_j(self.trial), energy_j(other.trial)
        if not ours_j or not theirs_j or not self.behaved_as(other):
            return False
        return abs(math.log(ours_j / theirs_j)) <= _NOISE_ERRORS * self.error_beside(other)

    def error_beside(self, other: Searched) -> float:
        """Return the standard error of the logarithm of two energies' ratio."""
        return _WINDOW_NOISE * math.sqrt(1.0 / self.windows + 1.0 / other.windows)


def searched(trials: Sequence[TrialRow]) -> list[Searched]:
    """Return the measured configurations, in the order of their first trials."""
    groups: dict[str, list[Searched]] = {}
    for trial in measured(trials):
        groups.setdefault(key_of(trial.configuration), []).append(Searched(trial, 1))
    return [together(ones) for ones in groups.values()]


def together(ones: Sequence[Searched]) -> Searched:
    """Return the first with the windows of all, if none of them was ended early."""
    rows = [(one.trial.measurement, one.windows) for one in ones]
    windows = [(m, count) for m, count in rows if m is not None and m.ended_early is None]
    if len(ones) == 1 or len(windows) < len(ones):
        return ones[0]  # a lower bound has no part in a mean
    counts = [count for _, count in windows]
    mean = _mean([m for m, _ in windows], counts)
    return Searched(replace(ones[0].trial, measurement=mean), sum(counts))


def _mean(windows: Sequence[Measurement], weights: Sequence[int]) -> Measurement:
    names = [n for n in windows[0].metrics if all(n in window.metrics for window in windows)]
    rows = [[window.metrics[name] for name in names] for window in windows]
    means = np.average(rows, axis=0, weights=weights).tolist()
    return replace(windows[0], metrics=dict(zip(names, means, strict=True)))
