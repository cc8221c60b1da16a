"""Window curves: power, clock and queue over time, and latency quantiles, of one window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuner.analysis.report_data.report_data import ChosenWindow
from tuner.measurement.reduce import latency_samples_ms
from tuner.records import FloatArray, RawRun

_MOST_POINTS = 400
# Shares of requests, denser towards the tail, where SLOs are.
SHARES = tuple(float(s) for s in (*np.linspace(0.0, 0.9, 46), *np.linspace(0.904, 1.0, 25)))


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time; seconds since the steady window began."""

    times_s: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WindowCurves:
    """The curves of a window. `quantiles_ms` has one entry per share in `SHARES`.

    `sm_clock_mhz` is None if the clock is unknown.
    """

    window: ChosenWindow
    window_length_s: float
    power_w: Series
    sm_clock_mhz: Series | None
    running: Series
    waiting: Series
    quantiles_ms: Mapping[str, tuple[float, ...]]


def window_curves(window: ChosenWindow) -> WindowCurves:
    """Return the curves of a window."""
    raw = window.raw
    samples, clock_mhz = latency_samples_ms(raw), raw.power.sm_clock_mhz
    return WindowCurves(
        window=window,
        window_length_s=raw.window_end_s - raw.window_start_s,
        power_w=_series(raw, raw.power.times_s, raw.power.power_w),
        sm_clock_mhz=None if clock_mhz is None else _series(raw, raw.power.times_s, clock_mhz),
        running=_series(raw, raw.server.times_s, raw.server.running),
        waiting=_series(raw, raw.server.times_s, raw.server.waiting),
        quantiles_ms={
            name: tuple(float(q) for q in np.quantile(values, SHARES))
            for name, values in samples.items()
            if values.size
        },
    )


def _series(raw: RawRun, times_s: FloatArray, values: FloatArray) -> Series:
    """Downsample to a bounded number of points, each the mean of its stretch of samples."""
    known = np.isfinite(values)
    times_s, values = times_s[known] - raw.window_start_s, values[known]
    if times_s.size > _MOST_POINTS:
        edges = np.linspace(0, times_s.size, _MOST_POINTS + 1).astype(int)[:-1]
        counts = np.diff(np.append(edges, times_s.size))
        times_s = np.add.reduceat(times_s, edges) / counts
        values = np.add.reduceat(values, edges) / counts
    return Series(tuple(map(float, np.round(times_s, 2))), tuple(map(float, np.round(values, 2))))
