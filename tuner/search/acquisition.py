"""Acquisition function: noisy expected hypervolume improvement, as its logarithm.

The utility of a set of points is the hypervolume that it dominates. Hypervolume alone gives little
weight to the minimum of the first objective: that point has the worst second objective, so it adds
only a thin slice. But most users want that minimum. So with two objectives it counts as if it
dominated the whole range of the second.

While no point is likely to be feasible there is no front to enlarge, and the criterion is how much
the largest violation is expected to fall. The probability of feasibility would stay beside points
that miss an SLO by little: it is high there until each of them was evaluated.

In this file N is the number of points, M that of objectives, S that of posterior samples, F that of
members of a front (which may be 0, and differs between samples).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import erfcx, log1p, log_ndtr, logsumexp, ndtr

from tuner.pareto import hypervolume, pareto_front, reference_point
from tuner.search.space import Flags, Floats

_MARGIN_SHARE = 0.1  # the reference lies so much beyond the worst, a share of the extent
_LEAST_MARGIN = 1e-4
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_SMALLEST = 1e-300
_ROUNDING = 1e-12  # a smaller difference of larger numbers is rounding
_HOPELESS = math.log(1e-6)  # of the best gain: then it does not matter how small one is exactly
_FAR = -30.0
_DIRECTIONS = 128
_DEEPEST = 1.0  # a violation so much lower than the least is as good as one lower still
_DEPTHS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Utility:
    """The utility of a set of points, and the expected gain of adding one.

    Attributes:
        reference: shape (M,); only what is better than this in every objective dominates anything.
        height: what the first objective's least is multiplied by; the extent of the second with
            two objectives, and 0 with one, where it would add nothing, and with more.
    """

    reference: Floats
    height: float

    @classmethod
    def around(cls, means: Floats, likely: Flags, plausible: Floats) -> Utility:
        """Return the utility for points of `means` (N, M), `likely` (N,) to be feasible.

        What lies beyond the reference is never looked for. So it is also beyond the front of what
        is expected of points that are not evaluated yet, `plausible` (K, M).
        """
        rows = means[likely] if likely.sum() >= 2 else means
        if len(plausible):
            rows = np.concatenate([rows, plausible[pareto_front(plausible)]])
        reference = reference_point(rows, extent_share=_MARGIN_SHARE, least_margin=_LEAST_MARGIN)
        height = float(reference[1] - rows[:, 1].min()) if means.shape[1] == 2 else 0.0
        return cls(reference, height)

    def of(self, points: Floats) -> float:
        """Return the utility of a set of points, shape (N, M)."""
        if len(self.reference) > 2:
            return _volume_along_rays(points, self.reference)
        least = float(self.reference[0])
        if len(points):
            least = min(least, float(points[:, 0].min()))
        return (
            hypervolume(points, self.reference) + (float(self.reference[0]) - least) * self.height
        )

    def log_gains(
        self, means: Floats, sds: Floats, fronts: Sequence[Floats], log_feasible: Floats
    ) -> Floats:
        """Return the log of the expected gain of each point, shape (N,).

        Averaged over posterior samples, each weighted by the probability of feasibility in it. Logs
        distinguish gains that are almost 0. They cost time, so they are computed only for points
        that may be the best. The others are accurate to a millionth of the best gain.

        Args:
            means: shape (S, N, M).
            sds: standard deviations, the same in every sample, shape (N, M).
            fronts: one per sample, each (F, M).
            log_feasible: log probability of feasibility, shape (S, N).
        """
        if means.shape[2] != 2:
            return self.exact_log_gains(means, sds, fronts, log_feasible)
        samples = zip(means, fronts, strict=True)
        plain = np.array([self._gains(mean, sds, front) for mean, front in samples])
        weighted = np.mean(plain * np.exp(log_feasible), axis=0)
        result: Floats = np.log(np.maximum(weighted, _SMALLEST))
        is_exact = plain.max(axis=0) > _ROUNDING
        best = result[is_exact].max(initial=-np.inf)
        may_be_best = math.log(_ROUNDING) + log_feasible.max(axis=0) > best + _HOPELESS
        again = np.flatnonzero(~is_exact & may_be_best)
        if len(again):
            result[again] = self.exact_log_gains(
                means[:, again], sds[again], fronts, log_feasible[:, again]
            )
        return result

    def exact_log_gains(
        self, means: Floats, sds: Floats, fronts: Sequence[Floats], log_feasible: Floats
    ) -> Floats:
        """Return the log of the expected gain, however little it is, shape (N,).

        Shapes are those of `log_gains`.
        """
        each = [self._log_gain(mean, sds, front) for mean, front in zip(means, fronts, strict=True)]
        result: Floats = logsumexp(np.array(each) + log_feasible, axis=0) - math.log(len(each))
        return result

    def _log_gain(self, means: Floats, sds: Floats, front: Floats) -> Floats:
        """Return the log of the expected gain over one front, shape (N,)."""
        volume = log_improvement(means, sds, front, self.reference)
        if self.height == 0.0:
            return volume
        least = log_expected_below(self._least(front), means[:, 0], sds[:, 0])
        result: Floats = np.logaddexp(volume, least + math.log(self.height))
        return result

    def _gains(self, means: Floats, sds: Floats, front: Floats) -> Floats:
        """Return the gains over one front without logs, which rounding makes useless near 0."""
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


def log_improvement(means: Floats, sds: Floats, front: Floats, reference: Floats) -> Floats:
    """Return the log of the expected hypervolume improvement over one front, shape (N,).

    Exact for one and two objectives that are independent of each other (in strips, as Emmerich,
    Giannakoglou and Naujoks 2006), averaged over fixed random rays for more. `means` and `sds` have
    shape (N, M), `front` (F, M), ascending in the first objective, `reference` (M,).
    """
    if means.shape[1] > 2:
        return _log_improvement_along_rays(means, sds, front, reference)
    if means.shape[1] == 1:
        best = min([float(reference[0]), *front[:, 0].tolist()])
        return log_expected_below(best, means[:, 0], sds[:, 0])
    front = front[np.all(front < reference, axis=1)]
    starts = [-math.inf, *front[:, 0].tolist()]
    ends = [*front[:, 0].tolist(), float(reference[0])]
    heights = [float(reference[1]), *front[:, 1].tolist()]
    below = [log_expected_below(edge, means[:, 0], sds[:, 0]) for edge in [*starts, ends[-1]]]
    strips = [
        _log_difference(below[i + 1], below[i]) + log_expected_below(height, means[:, 1], sds[:, 1])
        for i, height in enumerate(heights)
    ]
    result: Floats = logsumexp(np.array(strips), axis=0)
    return result


def log_expected_below(bound: float, mean: Floats, sd: Floats) -> Floats:
    """Return log E[max(bound - Y, 0)] for normal Y; stable however far off the bound is.

    `mean`, `sd` and the result have shape (N,).
    """
    if bound == -math.inf:
        return np.full_like(mean, -np.inf)
    z = (bound - mean) / sd
    result = np.empty_like(z)
    near = z > -1.0
    density = np.exp(-0.5 * z[near] ** 2 - _LOG_ROOT_2PI)
    result[near] = np.log(density + z[near] * np.exp(log_ndtr(z[near])))
    far = ~near
    t = z[far]
    # phi(z) + z Phi(z) = phi(z) (1 + z Phi(z) / phi(z)), the ratio without underflow
    ratio = math.sqrt(math.pi / 2.0) * erfcx(-t / math.sqrt(2.0))
    inside = np.where(t > _FAR, t * ratio, -1.0 + t**-2 - 3.0 * t**-4)
    result[far] = -0.5 * t**2 - _LOG_ROOT_2PI + log1p(np.maximum(inside, -1.0 + 1e-12))
    out: Floats = result + np.log(sd)
    return out


def expected_lowering(least: float, means: Floats, sds: Floats) -> Floats:
    """Return how far the largest of C violations is expected to fall below `least`, shape (N,).

    That is E[max(least - max_c V_c, 0)] for independent normal V_c, up to a bound: the integral of
    the distribution function of the largest, by midpoints that are densest below `least`. `means`
    and `sds` have shape (N, C).
    """
    steps = (np.arange(_DEPTHS) + 0.5) / _DEPTHS
    levels = least - _DEEPEST * steps**2
    all_below = np.ones((len(means), _DEPTHS))
    for mean, sd in zip(means.T, sds.T, strict=True):
        all_below *= ndtr((levels - mean[:, None]) / sd[:, None])
    result: Floats = all_below @ (2.0 * _DEEPEST * steps / _DEPTHS)
    return result


def _expected_below(bounds: Floats, mean: Floats, sd: Floats) -> Floats:
    """Return E[max(bound - Y, 0)] for normal Y, shape (bounds, N)."""
    z = (bounds[:, None] - mean) / sd
    density = np.exp(-0.5 * z**2 - _LOG_ROOT_2PI)
    result: Floats = sd * (density + z * ndtr(z))
    return result


def _log_difference(large: Floats, small: Floats) -> Floats:
    """Return log(exp(large) - exp(small)), -inf where they are equal."""
    gap = np.minimum(small - large, 0.0)
    with np.errstate(divide="ignore"):
        result: Floats = large + np.log(-np.expm1(np.where(np.isneginf(small), -np.inf, gap)))
    return result


def _volume_along_rays(points: Floats, reference: Floats) -> float:
    """Estimate the hypervolume up to a constant factor (Zhang and Golovin 2020, lemma 5).

    By the mean power of the reach along random rays. For three and more objectives a gain is known
    only along the same rays, so that utility and gain share their error, and their ratio has less.
    """
    inside = points[np.all(points < reference, axis=1)]
    if not len(inside):
        return 0.0
    rays, _ = _directions(points.shape[1])
    reaches = [_reach(inside, ray, reference).max() for ray in rays]
    return float(np.mean(np.power(reaches, points.shape[1])))


def _log_improvement_along_rays(
    means: Floats, sds: Floats, front: Floats, reference: Floats
) -> Floats:
    """Return the log of the mean gain in reach along random rays, one normal draw for each."""
    rays, normals = _directions(means.shape[1])
    power = means.shape[1]
    total = np.zeros(len(means))
    for ray, normal in zip(rays, normals, strict=True):
        best = _reach(front, ray, reference).max(initial=0.0) ** power
        sampled = _reach(means + sds * normal, ray, reference) ** power
        total += np.maximum(sampled - best, 0.0)
    result: Floats = np.log(total / len(rays) + _SMALLEST)
    return result


def _directions(objectives: int) -> tuple[Floats, Floats]:
    """Return the same random rays and normal deviates each time, both (rays, M)."""
    rng = np.random.default_rng(0)
    rays = np.abs(rng.standard_normal((_DIRECTIONS, objectives)))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return rays, rng.standard_normal((_DIRECTIONS, objectives))


def _reach(points: Floats, ray: Floats, reference: Floats) -> Floats:
    """Return how far along a ray from the reference each point dominates, shape (N,)."""
    result: Floats = np.maximum((reference - points) / ray, 0.0).min(axis=1)
    return result
