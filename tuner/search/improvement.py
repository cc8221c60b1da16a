"""How much a point is expected to add to the dominated hypervolume, in logs: never just 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import erfcx, log1p, log_ndtr, logsumexp

from tuner.search.space import Floats

_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_FAR = -30.0
_DIRECTIONS = 128
_SMALLEST = 1e-300


def log_expected_below(bound: float, mean: Floats, sd: Floats) -> Floats:
    """Return log E[max(bound - Y, 0)] for normal Y; stable however far off the bound is."""
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


def pareto(points: Floats) -> Floats:
    """Return the non-dominated rows, ascending in the first objective, without duplicates."""
    ordered = points[np.lexsort(points.T[::-1])]
    if points.shape[1] <= 2:
        last = ordered[:, -1]
        best_before = np.concatenate([[np.inf], np.minimum.accumulate(last)[:-1]])
        front: Floats = ordered[last < best_before[: len(last)]]
        return front
    kept: list[Floats] = []
    for row in ordered:
        if not any(bool(np.all(other <= row)) for other in kept):
            kept.append(row)
    return np.array(kept).reshape(len(kept), points.shape[1])


def log_improvement(means: Floats, sds: Floats, front: Floats, reference: Floats) -> Floats:
    """Return the log of the expected hypervolume improvement over one front, for each row.

    Exact for one and two objectives that are independent of each other, averaged over fixed random
    directions for more. `front` is one that `pareto` returned, and may be empty.
    """
    if means.shape[1] > 2:
        return _log_improvement_in_directions(means, sds, front, reference)
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


def mean_log_improvement(
    means: Floats, sds: Floats, fronts: Sequence[Floats], reference: Floats
) -> Floats:
    """Return the log of the improvement averaged over draws of the front, which is not known.

    `means` has a page for each draw.
    """
    draws = [
        log_improvement(mean, sds, front, reference)
        for mean, front in zip(means, fronts, strict=True)
    ]
    result: Floats = logsumexp(np.array(draws), axis=0) - math.log(len(draws))
    return result


def _log_improvement_in_directions(
    means: Floats, sds: Floats, front: Floats, reference: Floats
) -> Floats:
    """Average over directions; see `hypervolume`."""
    rays, normals = _directions(means.shape[1])
    power = means.shape[1]
    total = np.zeros(len(means))
    for ray, normal in zip(rays, normals, strict=True):
        best = _reach(front, ray, reference).max(initial=0.0) ** power
        drawn = _reach(means + sds * normal, ray, reference) ** power
        total += np.maximum(drawn - best, 0.0)
    result: Floats = np.log(total / len(rays) + _SMALLEST)
    return result


def _directions(outputs: int) -> tuple[Floats, Floats]:
    """Return the same random rays and normal deviates each time."""
    rng = np.random.default_rng(0)
    rays = np.abs(rng.standard_normal((_DIRECTIONS, outputs)))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return rays, rng.standard_normal((_DIRECTIONS, outputs))


def _reach(points: Floats, ray: Floats, reference: Floats) -> Floats:
    """Return how far along a ray from the reference each point dominates."""
    result: Floats = np.maximum((reference - points) / ray, 0.0).min(axis=1)
    return result


def hypervolume(points: Floats, reference: Floats) -> float:
    """Return the volume that points dominate within the reference.

    For three and more objectives it is estimated, up to a constant factor, by the mean power of the
    reach along random rays (Zhang and Golovin 2020, lemma 5).
    """
    inside = points[np.all(points < reference, axis=1)]
    if not len(inside):
        return 0.0
    if points.shape[1] > 2:
        rays, _ = _directions(points.shape[1])
        reaches = [_reach(inside, ray, reference).max() for ray in rays]
        return float(np.mean(np.power(reaches, points.shape[1])))
    front = pareto(inside)
    if front.shape[1] == 1:
        return float(reference[0] - front[0, 0])
    ends = np.append(front[1:, 0], reference[0])
    return float(np.sum((ends - front[:, 0]) * (reference[1] - front[:, 1])))


def _log_difference(large: Floats, small: Floats) -> Floats:
    """Return log(exp(large) - exp(small)), -inf where they are equal."""
    gap = np.minimum(small - large, 0.0)
    with np.errstate(divide="ignore"):
        result: Floats = large + np.log(-np.expm1(np.where(np.isneginf(small), -np.inf, gap)))
    return result
