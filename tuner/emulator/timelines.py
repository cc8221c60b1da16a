"""Timelines of an emulated run: power, requests and drafts, sampled from the engines' history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.emulator.engine.engine import Engine
from tuner.emulator.speculation import speculation_in
from tuner.records import DraftCounts, FloatArray, PowerTimeline, ServerTimeline, Source

SAMPLE_S = 0.1


def timelines(
    engines: Sequence[Engine], start_s: float, end_s: float, gain: float
) -> tuple[PowerTimeline, ServerTimeline]:
    """Sample the engines' history; power is the mean since the sample before."""
    regular = np.arange(0.0, end_s, SAMPLE_S)
    times_s = np.union1d(regular, [start_s, end_s])
    energy_j, running, waiting, clock_mhz = (np.zeros_like(times_s) for _ in range(4))
    for engine in engines:
        log = engine.log
        assert log is not None
        ends_s = np.concatenate([[0.0], log.ends_s])
        energy_j += gain * np.interp(times_s, ends_s, np.concatenate([[0.0], log.energies_j]))
        entry = np.minimum(np.searchsorted(log.ends_s, times_s), log.length - 1)
        running += log.running[entry]
        waiting += log.waiting[entry]
        clock_mhz += log.clocks_mhz[entry] / len(engines)
    power_w = np.empty_like(times_s)
    power_w[0] = gain * sum(engine.idle_w for engine in engines)
    power_w[1:] = np.diff(energy_j) / np.diff(times_s)
    server = ServerTimeline(times_s, running, waiting, _drafts(engines, times_s))
    return PowerTimeline(times_s, power_w, energy_j, Source.EMULATED, clock_mhz), server


def _drafts(engines: Sequence[Engine], times_s: FloatArray) -> DraftCounts | None:
    """Count the drafts up to each time; None without speculation. All shapes are (times,)."""
    how = speculation_in(engines[0].steps)
    if how is None:
        return None
    tokens = np.zeros_like(times_s)
    for engine in engines:
        assert engine.log is not None
        made = np.concatenate([[0.0], np.cumsum(engine.log.running)])  # one for each in a step
        tokens += np.interp(times_s, np.concatenate([[0.0], engine.log.ends_s]), made)
    drafts = tokens / how.tokens
    accepted_at = tuple(drafts * share for share in how.accepted_at)
    return DraftCounts(drafts, drafts * how.depth, drafts * how.accepted, accepted_at)
