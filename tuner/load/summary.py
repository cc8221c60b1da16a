"""Workload summary: lengths, gaps between arrivals, shared prefixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from tuner.load.workload import Workload
from tuner.records import FloatArray, GenerationRequest, Request, TextRequest

SUMMARY_REQUESTS = 2000
# vLLM's prefix cache works in blocks of so many tokens.
_CACHE_BLOCK_TOKENS = 16
_WIDE = 10.0


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution in a few numbers."""

    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, eq=False)
class WorkloadSummary:
    """The first requests of a workload.

    `gaps_s` are between arrivals at `request_rate`: the workload's own, or one request per second
    if it states none. `shared_prompt_share` is the share of prompt tokens that an unlimited
    prefix cache would hold already; None for text, whose tokens are not known here.
    """

    requests: int
    prompt_tokens: FloatArray
    output_tokens: FloatArray
    request_rate: float
    gaps_s: FloatArray
    is_text: bool
    shared_prompt_share: float | None

    @property
    def gap_variation(self) -> float | None:
        """Standard deviation / mean of the gaps: 1 is Poisson, more is burstier."""
        if self.gaps_s.size < 2 or self.gaps_s.mean() == 0:
            return None
        return float(self.gaps_s.std() / self.gaps_s.mean())


def summarize(workload: Workload, requests: int = SUMMARY_REQUESTS) -> WorkloadSummary:
    """Look at the first requests; of a trace at most one reading of it."""
    seen = _first(workload, requests)
    is_text = isinstance(seen[0], TextRequest | GenerationRequest)
    rate = workload.spec.load.request_rate or 1.0
    return WorkloadSummary(
        requests=len(seen),
        prompt_tokens=np.array([len(r.prompt_token_ids) for r in seen], dtype=np.float64),
        output_tokens=_output_tokens(seen),
        request_rate=rate,
        gaps_s=np.diff([r.arrival_s for r in seen]) / rate,
        is_text=is_text,
        shared_prompt_share=None if is_text else shared_prompt_share(seen),
    )


def output_lengths(workload: Workload) -> FloatArray:
    """Return the output tokens of the requests that `summarize` looks at."""
    return _output_tokens(_first(workload, SUMMARY_REQUESTS))


def _first(workload: Workload, requests: int) -> list[Request]:
    if workload.facts is not None:
        requests = min(requests, workload.facts.rows)
    return list(islice(workload.requests(), requests))


def _output_tokens(seen: Sequence[Request]) -> FloatArray:
    return np.array([r.output_tokens for r in seen], dtype=np.float64)


def spread(values: FloatArray) -> Spread:
    """Return the numbers of a distribution that is not empty."""
    p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
    return Spread(float(values.mean()), float(values.min()), p50, p90, p99, float(values.max()))


def shared_prompt_share(requests: Sequence[Request]) -> float:
    """Return which share of the prompt tokens repeats, in whole blocks, an earlier prompt."""
    known: set[int] = set()
    shared = total = 0
    for request in requests:
        total += len(request.prompt_token_ids)
        chain = list(_prefix_hashes(request))
        shared += _CACHE_BLOCK_TOKENS * sum(link in known for link in chain)
        known.update(chain)
    return shared / total


def _prefix_hashes(request: Request) -> Iterator[int]:
    """Yield a hash of each prefix that ends with a whole block."""
    data = request.prompt_token_ids.tobytes()
    step = _CACHE_BLOCK_TOKENS * request.prompt_token_ids.itemsize
    link = 0
    for start in range(0, len(data) - step + 1, step):
        link = hash((link, data[start : start + step]))
        yield link


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram: how many values lie from `low` to `high`."""

    low: float
    high: float
    count: int


def histogram(values: FloatArray, bars: int) -> list[Bar]:
    """Return at most so many bars of the same width."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [Bar(low, high, values.size)]
    edges = np.linspace(low, high, bars + 1)
    counts = np.histogram(values, edges)[0].tolist()
    return [Bar(*ends, count) for ends, count in zip(pairwise(edges.tolist()), counts, strict=True)]


def length_histogram(values: FloatArray, bars: int) -> list[Bar]:
    """Return at most so many bars of whole numbers, both ends included.

    Where lengths range over more than a factor of ten, each bar is a factor wide.
    """
    low, high = float(values.min()), float(values.max())
    if high > _WIDE * low:
        edges = np.unique(np.rint(np.geomspace(low, high + 1.0, bars + 1)))
    else:
        edges = np.arange(low, high + 2.0, np.ceil((high + 1.0 - low) / bars))
        edges = np.append(edges[edges <= high], high + 1.0)
    counts = np.histogram(values, edges)[0].tolist()
    return [
        Bar(start, after - 1.0, count)
        for (start, after), count in zip(pairwise(edges.tolist()), counts, strict=True)
    ]
