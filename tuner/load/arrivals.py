"""Arrival times of an open load, at a mean of one request per second."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Annotated, Literal, TypeAlias

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


def drawn_arrivals_s(arrivals: Arrivals, seed: int) -> Iterator[float]:
    """Yield rising times without end; those of a trace stand in its file and are not drawn."""
    if arrivals == "trace":
        raise ValueError("the arrivals of a trace are not drawn")
    start_s = 0.0
    for index in count():
        gaps_s = _gaps_s(arrivals, np.random.default_rng([seed, _STREAM, index]))
        times_s = np.round(start_s + np.cumsum(gaps_s), ARRIVAL_DECIMALS).tolist()
        yield from times_s
        start_s = times_s[-1]


def _gaps_s(arrivals: Arrivals, rng: np.random.Generator) -> FloatArray:
    if isinstance(arrivals, Gamma):
        return rng.gamma(arrivals.gamma, 1.0 / arrivals.gamma, _BLOCK)
    return np.ones(_BLOCK) if arrivals == "constant" else rng.standard_exponential(_BLOCK)
