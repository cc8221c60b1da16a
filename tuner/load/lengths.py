"""Distributions of prompt and output lengths, as written in a workload file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuner.records import FloatArray

IntArray: TypeAlias = NDArray[np.int64]
Tokens: TypeAlias = Annotated[int, Field(ge=1, le=2**20)]

_Z_P99 = 2.3263478740408408  # the standard normal's 99th percentile


class _Lengths(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    min: Tokens
    max: Tokens

    @model_validator(mode="after")
    def _ordered(self) -> _Lengths:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self

    def _clipped(self, lengths: NDArray[np.float64]) -> IntArray:
        return np.clip(np.rint(lengths), self.min, self.max).astype(np.int64)


class Constant(BaseModel):
    """Always the same length."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    distribution: Literal["constant"]
    value: Tokens

    @property
    def min(self) -> int:
        """The shortest length there can be."""
        return self.value

    @property
    def max(self) -> int:
        """The longest length there can be."""
        return self.value

    def draw(self, _rng: np.random.Generator, count: int) -> IntArray:
        """Return `count` lengths in tokens."""
        return np.full(count, self.value, dtype=np.int64)

    def at(self, shares: FloatArray) -> FloatArray:
        """Return the quantile function at `shares` in (0, 1), tokens."""
        return np.full(shares.shape, float(self.value))


class Uniform(_Lengths):
    """Every length from `min` to `max`, both included, equally often."""

    distribution: Literal["uniform"]

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """Return `count` lengths in tokens."""
        return rng.integers(self.min, self.max, size=count, endpoint=True)

    def at(self, shares: FloatArray) -> FloatArray:
        """Return the quantile function at `shares` in (0, 1), tokens."""
        quantiles: FloatArray = self.min + np.floor(shares * (self.max - self.min + 1))
        return quantiles


class Lognormal(_Lengths):
    """A lognormal, by its median and either its mean or its p99, clipped to [min, max].

    `mean` and `p99` are those before clipping.
    """

    distribution: Literal["lognormal"]
    median: float = Field(gt=0)
    mean: float | None = None
    p99: float | None = None

    @model_validator(mode="after")
    def _one_spread(self) -> Lognormal:
        if (self.mean is None) == (self.p99 is None):
            raise ValueError("a lognormal needs the median and either mean or p99, not both")
        for name, value in (("mean", self.mean), ("p99", self.p99)):
            if value is not None and not (self.median <= value < math.inf):
                raise ValueError(f"{name} {value:g} is less than the median {self.median:g}")
        return self

    @property
    def sigma(self) -> float:
        """The standard deviation of the logarithm."""
        if self.p99 is not None:
            return math.log(self.p99 / self.median) / _Z_P99
        assert self.mean is not None
        return math.sqrt(2.0 * math.log(self.mean / self.median))

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """Return `count` lengths in tokens."""
        return self._clipped(self.median * np.exp(self.sigma * rng.standard_normal(count)))

    def at(self, shares: FloatArray) -> FloatArray:
        """Return the quantile function at `shares` in (0, 1), tokens."""
        inverse = NormalDist().inv_cdf
        normal = np.array([inverse(share) for share in shares.tolist()])
        return np.clip(self.median * np.exp(self.sigma * normal), self.min, self.max)


class Quantiles(_Lengths):
    """Measured percentiles, with the logarithm of the length interpolated between them.

    `percentiles` maps a percentage in (0, 100) to tokens; `min` and `max` are its two ends.
    """

    distribution: Literal["quantiles"]
    percentiles: dict[float, float] = Field(min_length=1)

    @model_validator(mode="after")
    def _rising(self) -> Quantiles:
        shares, lengths = self._knots()
        if not all(0.0 < share < 1.0 for share in shares[1:-1]):
            raise ValueError("percentiles must lie between 0 and 100, e.g. {50: 452, 99: 2488}")
        if not _rises(lengths):
            raise ValueError(
                f"the lengths must rise from min to max with the percentile, found {lengths}"
            )
        return self

    def _knots(self) -> tuple[list[float], list[float]]:
        inner = sorted(self.percentiles.items())
        shares = [0.0, *(percent / 100.0 for percent, _ in inner), 1.0]
        return shares, [float(self.min), *(length for _, length in inner), float(self.max)]

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """Return `count` lengths in tokens."""
        shares, lengths = self._knots()
        return self._clipped(np.exp(np.interp(rng.random(count), shares, np.log(lengths))))

    def at(self, shares: FloatArray) -> FloatArray:
        """Return the quantile function at `shares` in (0, 1), tokens."""
        known, lengths = self._knots()
        quantiles: FloatArray = np.exp(np.interp(shares, known, np.log(lengths)))
        return quantiles


def _rises(values: Sequence[float]) -> bool:
    return all(a <= b for a, b in pairwise(values))


Lengths: TypeAlias = Annotated[
    Constant | Uniform | Lognormal | Quantiles, Field(discriminator="distribution")
]
