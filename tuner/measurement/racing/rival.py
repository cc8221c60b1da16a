"""Rival: a trial that was measured in full, as the time line that a later one is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuner.measurement.requests.latencies import e2el_ms, tpot_ms, ttft_ms
from tuner.records import FloatArray, RawRun, RequestState

COMPARED_LATENCIES = ("ttft_ms", "tpot_ms", "e2el_ms")


@dataclass(frozen=True, slots=True, eq=False)
class Rival:
    """One load as columns. All times are s since the load began.

    Attributes:
        trial: its number.
        metrics: those of its steady window.
        window_s: when that began and ended.
        energy_s, energy_j: what the GPUs had used since some fixed time, shape (samples,).
        scheduled_s, answered_s: of each answer, by scheduled time, shape (N,).
        latencies_ms: each of `COMPARED_LATENCIES`, shape (N,); NaN where an answer has none.
    """

    trial: int
    metrics: Mapping[str, float]
    window_s: tuple[float, float]
    energy_s: FloatArray
    energy_j: FloatArray
    scheduled_s: FloatArray
    answered_s: FloatArray
    latencies_ms: Mapping[str, FloatArray]

    @property
    def lifetime_s(self) -> float:
        """The mean time from when a request is scheduled to its last token, s."""
        return float(np.mean(self.answered_s - self.scheduled_s))

    def in_window(self, latency: str) -> FloatArray:
        """Return a latency of the answers that ended in the steady window."""
        start_s, end_s = self.window_s
        values = self.latencies_ms[latency]
        return values[(self.answered_s > start_s) & (self.answered_s <= end_s) & ~np.isnan(values)]


def rival_of(
    trial: int, run: RawRun, metrics: Mapping[str, float], load_start_s: float
) -> Rival | None:
    """Return a trial's load as a rival; None if too little was recorded of it."""
    done = [r for r in run.requests if r.state is RequestState.DONE and r.token_times_s.size]
    if len(done) < 2 or run.power.times_s.size < 2:
        return None
    done.sort(key=lambda record: record.scheduled_s)
    of = {"ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "e2el_ms": e2el_ms}
    return Rival(
        trial=trial,
        metrics=metrics,
        window_s=(run.window_start_s - load_start_s, run.window_end_s - load_start_s),
        energy_s=run.power.times_s - load_start_s,
        energy_j=run.power.energy_j,
        scheduled_s=np.array([r.scheduled_s for r in done]) - load_start_s,
        answered_s=np.array([float(r.token_times_s[-1]) for r in done]) - load_start_s,
        latencies_ms={
            name: np.array([np.nan if (v := latency(r)) is None else v for r in done])
            for name, latency in of.items()
        },
    )
