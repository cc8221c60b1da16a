"""What a set of points is worth: the volume that it dominates, and the least first objective.

The volume alone hardly asks for the least of the first objective: what lies there has the worst of
the second, so it adds a thin slice. But it is what most users want to know. So the least counts as
if it dominated the whole range of the second objective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, ndtr

from tuner.search.improvement import hypervolume, log_expected_below, mean_log_improvement
from tuner.search.space import Floats

_BEYOND = 0.1  # the reference lies so much beyond the worst of the front, a share of its extent
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_SMALLEST = 1e-300
_ROUNDING = 1e-12  # what is smaller is not to be believed of a difference of larger numbers
_HOPELESS = math.log(1e-6)  # of the best gain: then it does not matter how small one is exactly


@dataclass(frozen=True, slots=True, eq=False)
class Worth:
    """A measure of sets of points that are all to be made small.

    Attributes:
        reference: only what is better than this in every objective dominates anything.
        height: what the first objective's least is multiplied by; the extent of the second with
            two objectives, and 0 with one, where it would add nothing, and with more.
    """

    reference: Floats
    height: float

    @classmethod
    def around(cls, means: Floats, likely: np.ndarray) -> Worth:
        """Return the measure for these points, of which some are likely to be feasible."""
        known = means[likely] if likely.sum() >= 2 else means
        best, worst = known.min(axis=0), known.max(axis=0)
        reference = worst + _BEYOND * np.maximum(worst - best, 1e-3)
        height = float(reference[1] - best[1]) if means.shape[1] == 2 else 0.0
        return cls(reference, height)

    def of(self, points: Floats) -> float:
        """Return what points are worth."""
        least = float(self.reference[0])
        if len(points):
            least = min(least, float(points[:, 0].min()))
        return (
            hypervolume(points, self.reference) + (float(self.reference[0]) - least) * self.height
        )

    def log_gains(
        self, means: Floats, sds: Floats, fronts: Sequence[Floats], log_shares: Floats
    ) -> Floats:
        """Return the log of what each row is expected to add, averaged over draws of the front.

        `means` has a page for each draw. `log_shares` are the logs of the shares of it that count.
        Logs tell apart what is almost 0; they cost time and are taken only where that may be the
        best of all. The rest is right to a millionth of the best.
        """
        if means.shape[2] != 2:
            return mean_log_improvement(means, sds, fronts, self.reference) + log_shares
        draws = zip(means, fronts, strict=True)
        plain = np.mean([self._gains(mean, sds, front) for mean, front in draws], axis=0)
        result: Floats = np.log(np.maximum(plain, _SMALLEST)) + log_shares
        is_known = plain > _ROUNDING
        best = result[is_known].max(initial=-np.inf)
        doubtful = np.flatnonzero(~is_known & (math.log(_ROUNDING) + log_shares > best + _HOPELESS))
        if len(doubtful):
            exact = self.exact_log_gains(means[:, doubtful], sds[doubtful], fronts)
            result[doubtful] = exact + log_shares[doubtful]
        return result

    def exact_log_gains(self, means: Floats, sds: Floats, fronts: Sequence[Floats]) -> Floats:
        """Return the log of what each row is expected to add, however little it is."""
        volume = mean_log_improvement(means, sds, fronts, self.reference)
        if self.height == 0.0:
            return volume
        below = [
            log_expected_below(self._least(front), mean[:, 0], sds[:, 0])
            for mean, front in zip(means, fronts, strict=True)
        ]
        least = logsumexp(np.array(below), axis=0) - math.log(len(fronts) / self.height)
        result: Floats = np.logaddexp(volume, least)
        return result

    def _gains(self, means: Floats, sds: Floats, front: Floats) -> Floats:
        """Return it over one front, without logs, which rounding makes useless near 0."""
        front = front[np.all(front < self.reference, axis=1)]
        edges = np.append(front[:, 0], self.reference[0])
        heights = np.append(self.reference[1], front[:, 1])
        widths = _expected_below(edges, means[:, 0], sds[:, 0])
        least = widths[0].copy()
        widths[1:] -= widths[:-1].copy()
        volume = np.einsum("ij,ij->j", widths, _expected_below(heights, means[:, 1], sds[:, 1]))
        result: Floats = volume + self.height * least
        return result

    def _least(self, front: Floats) -> float:
        inside = front[np.all(front < self.reference, axis=1)]
        return float(inside[0, 0]) if len(inside) else float(self.reference[0])


def _expected_below(bounds: Floats, mean: Floats, sd: Floats) -> Floats:
    """Return E[max(bound - Y, 0)] for normal Y: a row for each bound."""
    z = (bounds[:, None] - mean) / sd
    density = np.exp(-0.5 * z**2 - _LOG_ROOT_2PI)
    result: Floats = sd * (density + z * ndtr(z))
    return result
