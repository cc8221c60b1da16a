"""How often the intervals of windows hold the truth of the long runs they were cut from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from helpers.virtual_loads import Case, cut, metrics_of, simulate
from tuner.measurement.intervals import Interval, intervals
from tuner.records import RawRun

COVERED = (
    "energy_per_output_token_j",
    "output_throughput_tok_s",
    "request_throughput_req_s",
    "mean_power_w",
    "p50_tpot_ms",
    "p95_tpot_ms",
    "p99_tpot_ms",
    "p50_ttft_ms",
    "p95_ttft_ms",
    "p99_ttft_ms",
    "p99_e2el_ms",
)
SETTLING_LIFETIMES = 8.0


def windows(run: RawRun, window_s: float) -> Iterator[RawRun]:
    start_s = run.window_start_s
    while start_s + window_s <= run.window_end_s + 1e-6:
        yield cut(run, start_s, start_s + window_s)
        start_s += window_s


@dataclass(slots=True)
class Coverage:
    """How often an interval was there, held the truth, and how wide it was."""

    windows: int = 0
    had: int = 0
    held: int = 0
    widths: list[float] = field(default_factory=list)

    def note(self, interval: Interval | None, truth: float) -> None:
        self.windows += 1
        if interval is not None:
            self.had += 1
            self.held += interval.low <= truth <= interval.high
            self.widths.append(interval.half_width / truth)

    @property
    def share(self) -> float:
        return self.held / self.had if self.had else math.nan


def long_runs(case: Case, length_s: float, count: int) -> list[RawRun]:
    """Return runs of different requests whose whole length is steady."""
    warmup_s = SETTLING_LIFETIMES * case.lifetime_s
    return [simulate(case, seed, warmup_s, warmup_s + length_s) for seed in range(count)]


def coverage(runs: Sequence[RawRun], window_s: float) -> dict[str, Coverage]:
    """Cut runs into windows; the truth is that of all runs together."""
    whole = [metrics_of(run) for run in runs]
    truth = {name: float(np.mean([m[name] for m in whole])) for name in COVERED}
    found = {name: Coverage() for name in COVERED}
    for run in runs:
        for window in windows(run, window_s):
            known = intervals(window, {})
            for name, tally in found.items():
                tally.note(known.get(name), truth[name])
    return found
