"""Arrival times of an open load, at a mean of one request per second."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Annotated, Literal, Protocol, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tuner.records import FloatArray

ARRIVAL_DECIMALS = 6  # microseconds: the last bits of a float differ between CPUs
_STREAM = 1  # keeps these draws apart from the others of the same seed
_BLOCK = 256


class Gamma(BaseModel):
    """Gaps from a gamma distribution of this shape: 1 is Poisson, less is burstier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gamma: Annotated[float, Field(ge=0.01, le=1000.0, allow_inf_nan=False)]


Arrivals: TypeAlias = Literal["poisson", "constant", "trace"] | Gamma


class Gaps(Protocol):
    """Draws gaps with a mean of 1 s, a block at a time; see `tuner.load.draws`."""

    block_requests: int | None

    def gaps_s(self, arrivals: Arrivals, rng: np.random.Generator, count: int) -> FloatArray:
        """Return `count` gaps, s."""


def drawn_arrivals_s(arrivals: Arrivals, seed: int, draws: Gaps) -> Iterator[float]:
    """Yield rising times without end; those of a trace stand in its file and are not drawn."""
    if arrivals == "trace":
        raise ValueError("the arrivals of a trace are not drawn")
    start_s = 0.0
    for index in count():
        rng = np.random.default_rng([seed, _STREAM, index])
        gaps_s = draws.gaps_s(arrivals, rng, draws.block_requests or _BLOCK)
        times_s = np.round(start_s + np.cumsum(gaps_s), ARRIVAL_DECIMALS).tolist()
        yield from times_s
        start_s = times_s[-1]


def drawn_gaps_s(arrivals: Arrivals, rng: np.random.Generator, count: int) -> FloatArray:
    """Return `count` gaps, s, each drawn on its own."""
    if isinstance(arrivals, Gamma):
        return rng.gamma(arrivals.gamma, 1.0 / arrivals.gamma, count)
    return np.ones(count) if arrivals == "constant" else rng.standard_exponential(count)
