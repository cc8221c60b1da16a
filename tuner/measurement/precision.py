"""Precision: the target width of a window's intervals, and the width reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.measurement.intervals import SHARES, Interval
from tuner.metrics import WHOLE_ANSWER, kind_of
from tuner.records import Measurement
from tuner.slo import Slo

_WATCHED = ("ttft_ms", "tpot_ms", *WHOLE_ANSWER)


@dataclass(frozen=True, slots=True)
class Precision:
    """How long a window goes on: until its 95 % intervals are narrow enough.

    Attributes:
        min_window_s: no window is shorter.
        max_window_s: the window ends here, narrow enough or not.
        energy_share: target for energy per output token, image or second of video, half-width /
            value. While no energy is reported, the target for the rate at which requests finish.
        percentile_share: the same for each of `percentiles`.
        percentiles: metrics such as `p99_tpot_ms`; `itl_ms` and means are not watched.
        bounds: a percentile with a bound is also precise enough once its interval lies on one side.
    """

    min_window_s: float = 20.0
    max_window_s: float = 180.0
    energy_share: float = 0.02
    percentile_share: float = 0.05
    percentiles: tuple[str, ...] = ()
    bounds: tuple[Slo, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.min_window_s <= self.max_window_s:
            raise ValueError(
                f"expected 0 < min_window_s <= max_window_s, found {self.min_window_s:g} and "
                f"{self.max_window_s:g}"
            )

    def is_clear(self, metric: str, interval: Interval) -> bool:
        """Say whether the interval of a metric lies wholly on one side of each of its bounds."""
        bounds = [slo.bound for slo in self.bounds if slo.metric == metric]
        return bool(bounds) and all(not interval.low <= bound <= interval.high for bound in bounds)


def watched_percentiles(slos: tuple[Slo, ...]) -> tuple[str, ...]:
    """Return the metrics of SLOs that a window can be made long enough for."""
    parts = [(slo.metric, *slo.metric.partition("_")[::2]) for slo in slos]
    return tuple(m for m, statistic, of in parts if statistic in SHARES and of in _WATCHED)


@dataclass(frozen=True, slots=True)
class Achieved:
    """How precise one metric became: half of its 95 % interval / its value, None without one."""

    metric: str
    half_width_share: float | None
    target_share: float
    reached: bool

    def __str__(self) -> str:
        wide = (
            "unknown" if self.half_width_share is None else f"{100 * self.half_width_share:.1f} %"
        )
        return f"{self.metric} {wide} (target {100 * self.target_share:.1f} %)"


def achieved(
    precision: Precision, measurement: Measurement, intervals: Mapping[str, Interval]
) -> tuple[Achieved, ...]:
    """Return how precise each metric with a target became, from the intervals of the window."""
    targets = {kind_of(measurement.metrics).energy: precision.energy_share}
    targets |= dict.fromkeys(precision.percentiles, precision.percentile_share)
    outcome = []
    for metric, target in targets.items():
        value, interval = measurement.metrics.get(metric), intervals.get(metric)
        if value is None or value <= 0 or interval is None:
            outcome.append(Achieved(metric, None, target, reached=False))
            continue
        share = interval.half_width / value
        reached = share <= target or precision.is_clear(metric, interval)
        outcome.append(Achieved(metric, share, target, reached))
    return tuple(outcome)


def imprecision(outcome: Iterable[Achieved]) -> tuple[str, ...]:
    """Return the warning that says which intervals stayed too wide, if any did."""
    wide = [str(a) for a in outcome if not a.reached]
    if not wide:
        return ()
    return (f"interval wider than the target: {', '.join(wide)}; see --max-window-s",)
