"""The names of the metrics: a contract between the store, SLOs, objectives and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from tuner.errors import UsageError, unknown_name


class Direction(StrEnum):
    """Which values are better."""

    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, its label for people, unit, better direction and meaning."""

    name: str
    label: str
    unit: str
    better: Direction
    meaning: str


LATENCIES: Mapping[str, str] = MappingProxyType(
    {
        "ttft_ms": "first streamed token - scheduled time",
        "tpot_ms": "(last token - first token) / (output tokens - 1), per request",
        "itl_ms": "gap between consecutive tokens, pooled over requests; tokens that arrive "
        "together share the gap before them evenly",
        "e2el_ms": "last token - scheduled time",
    }
)
STATISTICS: Mapping[str, str] = MappingProxyType(
    {
        "mean": "mean",
        "p50": "median",
        "p90": "90th percentile",
        "p95": "95th percentile",
        "p99": "99th percentile",
    }
)

_SCALARS = (
    Metric(
        "energy_per_output_token_j",
        "energy per output token",
        "J/token",
        Direction.MIN,
        "gross GPU energy of the window / output tokens that arrived in it",
    ),
    Metric(
        "energy_per_request_j",
        "energy per request",
        "J/request",
        Direction.MIN,
        "energy per output token x mean output tokens of the requests finished in the window",
    ),
    Metric(
        "energy_per_input_token_j",
        "energy per input token",
        "J/token",
        Direction.MIN,
        "gross GPU energy of the window / prompt tokens of the requests whose first token arrived "
        "in it",
    ),
    Metric(
        "mean_power_w",
        "mean power",
        "W",
        Direction.MIN,
        "gross GPU energy of the window / its length",
    ),
    Metric(
        "output_throughput_tok_s",
        "output throughput",
        "tok/s",
        Direction.MAX,
        "output tokens that arrived in the window / its length",
    ),
    Metric(
        "request_throughput_req_s",
        "request throughput",
        "req/s",
        Direction.MAX,
        "requests finished in the window / its length",
    ),
    Metric(
        "offered_rate_req_s",
        "offered rate",
        "req/s",
        Direction.MAX,
        "requests scheduled in the window / its length",
    ),
    Metric(
        "goodput_req_s",
        "goodput",
        "req/s",
        Direction.MAX,
        "requests finished in the window that met every latency SLO / its length",
    ),
    Metric(
        "slo_attainment",
        "SLO attainment",
        "share",
        Direction.MAX,
        "share of the window's requests that met every latency SLO",
    ),
    Metric(
        "draft_acceptance_rate",
        "draft acceptance",
        "share",
        Direction.MAX,
        "accepted tokens of drafts / drafted tokens, by the server's counters over the window",
    ),
    Metric(
        "mean_acceptance_length",
        "acceptance length",
        "tok",
        Direction.MAX,
        "1 + accepted tokens / drafts: what a step yields of a sequence that has a draft",
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType(
    {m.name: m for m in _SCALARS}
    | {
        f"{stat}_{latency}": Metric(
            f"{stat}_{latency}",
            f"{stat} {latency.removesuffix('_ms').upper()}",
            "ms",
            Direction.MIN,
            f"{how} of: {meaning}",
        )
        for latency, meaning in LATENCIES.items()
        for stat, how in STATISTICS.items()
    }
)


def metric_named(name: str) -> Metric:
    """Return the metric, or raise `UsageError` naming the nearest ones."""
    try:
        return METRICS[name]
    except KeyError:
        raise UsageError(unknown_name("metric", name, METRICS)) from None
