"""Draws of gaps and lengths: each on its own, or stratified so that every block is representative.

Stratified sampling: a block of n requests takes the mean of each of the n equally likely strata of
a distribution once, in random order. So a block lasts n mean gaps and asks for n times the mean
number of tokens, while gaps and lengths still have their distribution.
"""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import numpy as np

from tuner.load.arrivals import Arrivals, Gamma, drawn_gaps_s
from tuner.load.lengths import IntArray, Lengths
from tuner.records import FloatArray

_PER_STRATUM = 16  # quantiles that its mean is computed from
_POISSON = Gamma(gamma=1.0)
_Array = TypeVar("_Array", IntArray, FloatArray)


class Draws(Protocol):
    """How gaps and lengths are drawn; `block_requests` is None if any number may be drawn at once.

    The gaps have a mean of 1 s.
    """

    block_requests: int | None

    def lengths(self, of: Lengths, rng: np.random.Generator, count: int) -> IntArray:
        """Return `count` lengths in tokens."""

    def gaps_s(self, arrivals: Arrivals, rng: np.random.Generator, count: int) -> FloatArray:
        """Return `count` gaps between arrivals, s."""


class IndependentDraws:
    """Every value is drawn on its own."""

    block_requests: int | None = None

    def lengths(self, of: Lengths, rng: np.random.Generator, count: int) -> IntArray:
        """Return `count` lengths in tokens."""
        return of.draw(rng, count)

    def gaps_s(self, arrivals: Arrivals, rng: np.random.Generator, count: int) -> FloatArray:
        """Return `count` gaps between arrivals, s."""
        return drawn_gaps_s(arrivals, rng, count)


class StratifiedDraws:
    """Each block of `block_requests` values has one of every stratum, in random order."""

    def __init__(self, block_requests: int) -> None:
        if block_requests < 1:
            raise ValueError(f"a block needs at least one request, found {block_requests}")
        self.block_requests: int | None = block_requests
        self._lengths: dict[str, IntArray] = {}
        self._gaps_s: dict[str, FloatArray] = {}

    def lengths(self, of: Lengths, rng: np.random.Generator, count: int) -> IntArray:
        """Return `count` lengths in tokens: whole blocks, and a part of the last one."""
        key = of.model_dump_json()
        if key not in self._lengths:
            self._lengths[key] = _rounded(self._means(of.at))
        return _shuffled(self._lengths[key], rng, count)

    def gaps_s(self, arrivals: Arrivals, rng: np.random.Generator, count: int) -> FloatArray:
        """Return `count` gaps between arrivals, s: whole blocks, and a part of the last one."""
        key = str(arrivals)
        if key not in self._gaps_s:
            self._gaps_s[key] = self._gap_strata_s(arrivals)
        return _shuffled(self._gaps_s[key], rng, count)

    def _gap_strata_s(self, arrivals: Arrivals) -> FloatArray:
        assert self.block_requests is not None
        if arrivals == "constant":
            return np.ones(self.block_requests)
        if isinstance(arrivals, Gamma) and arrivals != _POISSON:
            from scipy.special import gammaincinv

            shape = arrivals.gamma
            strata = self._means(lambda shares: np.asarray(gammaincinv(shape, shares), np.float64))
            scaled: FloatArray = strata / strata.mean()
            return scaled
        edges = np.linspace(0.0, 1.0, self.block_requests + 1)
        left = 1.0 - edges[:-1]
        # the integral of -log(1 - u), the exponential's quantile function, from 0 to u
        upto = edges + (1.0 - edges) * np.log(np.append(left, 1.0))
        exact: FloatArray = np.diff(upto) * self.block_requests
        return exact

    def _means(self, at: _Quantile) -> FloatArray:
        """Return the mean of each stratum of a quantile function, shape (block_requests,)."""
        assert self.block_requests is not None
        count = self.block_requests * _PER_STRATUM
        shares = (np.arange(count) + 0.5) / count
        means: FloatArray = at(shares).reshape(-1, _PER_STRATUM).mean(axis=1)
        return means


class _Quantile(Protocol):
    def __call__(self, shares: FloatArray, /) -> FloatArray: ...


def _rounded(means: FloatArray) -> IntArray:
    """Round to whole tokens so that no partial sum is off by more than half a token."""
    sums = np.concatenate([[0.0], np.rint(np.cumsum(means))])
    return np.diff(sums).astype(np.int64)


def _shuffled(strata: _Array, rng: np.random.Generator, count: int) -> _Array:
    blocks = [rng.permutation(strata) for _ in range(math.ceil(count / strata.size))]
    return np.concatenate(blocks)[:count]
