"""Service-level objectives: bounds on measured metrics, such as `p99_tpot_ms<=50`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tuner.errors import UsageError
from tuner.metrics import LATENCIES, STATISTICS, Direction, metric_named

_PATTERN = re.compile(r"\s*(?P<metric>\w+)\s*(?P<op><=|>=)\s*(?P<bound>\S+)\s*")


@dataclass(frozen=True, slots=True)
class Slo:
    """A bound on one metric, in the metric's own unit: `<=` or `>=` by its better direction.

    `written` is the text that it was parsed from; the store keeps it. Comparisons of two bounds
    ignore it.
    """

    metric: str
    bound: float
    written: str | None = field(default=None, compare=False, repr=False)

    @property
    def direction(self) -> Direction:
        """MIN for an upper bound, MAX for a lower one."""
        return metric_named(self.metric).better

    @classmethod
    def parse(cls, text: str) -> Slo:
        """Read `METRIC<=BOUND` or `METRIC>=BOUND`.

        Raises `UsageError` with what was expected, what was found and what to write.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise UsageError(f"SLO '{text}' is not METRIC<=BOUND; write e.g. 'p99_tpot_ms<=50'")
        try:
            metric = metric_named(match["metric"])
        except UsageError as error:
            raise UsageError(f"SLO '{text}': {error}") from None
        expected = "<=" if metric.better is Direction.MIN else ">="
        if match["op"] != expected:
            raise UsageError(f"SLO '{text}': {metric.name} needs a bound with '{expected}'")
        try:
            bound = float(match["bound"])
        except ValueError:
            bound = math.nan
        if not (math.isfinite(bound) and bound > 0):
            raise UsageError(f"SLO '{text}': '{match['bound']}' is not a number greater than 0")
        return cls(metric.name, bound, text)

    def violation(self, value: float) -> float:
        """Return the log ratio by which `value` exceeds the bound; <= 0 means it is met."""
        if value <= 0:
            return -math.inf if self.direction is Direction.MIN else math.inf
        ratio = value / self.bound
        return math.log(ratio) if self.direction is Direction.MIN else -math.log(ratio)

    @property
    def text(self) -> str:
        """The bound as it was written; `Slo.parse` reads it back without loss."""
        if self.written is not None:
            return self.written
        shown = str(self)
        return shown if Slo.parse(shown) == self else f"{self.metric}{self._operator}{self.bound!r}"

    @property
    def _operator(self) -> str:
        return "<=" if self.direction is Direction.MIN else ">="

    def __str__(self) -> str:
        return f"{self.metric}{self._operator}{self.bound:g}"


def meets_all(metrics: Mapping[str, float], slos: Iterable[Slo]) -> bool:
    """Say whether every SLO's metric was measured and is within its bound."""
    return all(slo.metric in metrics and slo.violation(metrics[slo.metric]) <= 0.0 for slo in slos)


def request_limits_ms(slos: Iterable[Slo]) -> dict[str, float]:
    """Return, for each latency with an SLO, the strictest bound: what a *good* request meets.

    A percentile's bound is applied to each request, as vLLM's goodput does.
    """
    limits: dict[str, float] = {}
    for slo in slos:
        statistic, _, latency = slo.metric.partition("_")
        if statistic in STATISTICS and latency in LATENCIES:
            limits[latency] = min(slo.bound, limits.get(latency, math.inf))
    return limits
