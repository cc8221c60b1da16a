"""Loads on the emulator's virtual clock, whose truth is known: cases, runs and replays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator import virtual
from tuner.load.lengths import Uniform
from tuner.load.workload import LoadSpec, Workload, WorkloadSpec, load_workload
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import SteadyWindow
from tuner.records import InFlight, Load, Measurement, RawRun, RequestState


class FixedWatch:
    """A window whose times are known before the load begins."""

    def __init__(self, start_s: float, end_s: float) -> None:
        self.window_start_s, self.window_end_s = start_s, end_s

    def started(self, now_s: float) -> None:
        pass

    def sent(self, now_s: float) -> None:
        pass

    def finished(self, now_s: float) -> None:
        pass


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A workload, a load and a configuration; `lifetime_s` is about that of its requests."""

    workload: str
    load: Load
    lifetime_s: float
    configuration: Configuration = field(default_factory=Configuration)

    def __str__(self) -> str:
        load = self.load
        offered = f"{load.request_rate:g}/s" if load.request_rate else f"x{load.concurrency}"
        device = "".join(f" {value} W" for value in self.configuration.device.values())
        return f"{self.workload} {offered}{device}"


SHORT = WorkloadSpec(
    description="Short requests, so that a test sees many of them.",
    prompt_tokens=Uniform(distribution="uniform", min=64, max=512),
    output_tokens=Uniform(distribution="uniform", min=8, max=96),
    load=LoadSpec(concurrency=16),
)


def capped(power_limit_w: float) -> Configuration:
    return Configuration(device={"power_limit_w": power_limit_w})


CASES = (
    Case("short", Load(concurrency=16), 0.5),
    Case("chat", Load(concurrency=8), 4.4),
    Case("chat", Load(concurrency=64), 9.2),
    Case("chat", Load(concurrency=64), 11.5, capped(400.0)),
    Case("chat", Load(request_rate=2.0), 4.7),
    Case("code", Load(concurrency=16), 2.6),
    Case("code", Load(concurrency=64), 6.1),
)


def workload(name: str, seed: int) -> Workload:
    spec = SHORT if name == "short" else load_workload(name).spec
    return Workload(name, spec.model_copy(update={"seed": seed}))


def simulate(case: Case, seed: int, start_s: float, end_s: float) -> RawRun:
    """Run a case with requests of its own."""
    requests = workload(case.workload, seed).requests()
    gpu, model = load_gpu("H100-SXM"), load_model("meta-llama/Llama-3.1-8B-Instruct")
    watch = FixedWatch(start_s, end_s)
    return virtual.simulate(model, gpu, case.configuration, requests, case.load, watch, seed=seed)


def cut(run: RawRun, start_s: float, end_s: float) -> RawRun:
    """Return what of a long run a shorter window would have seen."""
    requests = tuple(r for r in run.requests if r.ended_s > start_s and r.sent_s <= end_s)
    return replace(run, requests=requests, window_start_s=start_s, window_end_s=end_s)


def metrics_of(run: RawRun) -> Mapping[str, float]:
    result = reduce_run(run, {})
    assert isinstance(result, Measurement), result
    return result.metrics


def replay(run: RawRun, watch: SteadyWindow, *, seen: bool = True) -> None:
    """Tell a watch of a run in time order, as a driver would, until it ends the window.

    `seen`: also of tokens, energy and latencies, and which requests are under way when it asks.
    """
    events = [(r.sent_s, 1, "sent", r) for r in run.requests]
    events += [(r.ended_s, 2, "ended", r) for r in run.requests if r.state is RequestState.DONE]
    now_s = 0.0
    if seen:
        token_s = np.sort(np.concatenate([r.token_times_s for r in run.requests]))
        tokens = np.searchsorted(token_s, run.power.times_s, side="right")
        samples = zip(run.power.times_s, run.power.energy_j, tokens, strict=True)
        events += [(t, 0, "sample", (j, n)) for t, j, n in samples]  # type: ignore[misc]
        columns = Columns(run)
        watch.set_in_flight_source(lambda: columns.under_way(now_s))
    events.sort(key=lambda event: event[:2])
    watch.started(0.0)
    for at_s, _, kind, what in events:
        now_s = at_s
        end_s = watch.window_end_s
        if end_s is not None and now_s >= end_s:
            return
        if kind == "sent":
            watch.sent(now_s)
        elif kind == "sample":
            watch.sampled(now_s, *what)  # type: ignore[misc]
        else:
            times_s = what.token_times_s
            if seen:
                watch.answered(now_s, what.scheduled_s, float(times_s[0]), times_s.size)
            watch.finished(now_s)


class Columns:
    """The requests of a run as columns, to tell which were under way at any time."""

    def __init__(self, run: RawRun) -> None:
        rows = run.requests
        self._sent_s = np.array([r.sent_s for r in rows])
        self._scheduled_s = np.array([r.scheduled_s for r in rows])
        cut = [r.state is not RequestState.DONE for r in rows]
        self._ended_s = np.where(cut, np.inf, [r.ended_s for r in rows])
        firsts = [r.token_times_s[0] if r.token_times_s.size else np.inf for r in rows]
        self._first_s = np.array(firsts)
        self._tokens = np.array([float(r.output_tokens) for r in rows])

    def under_way(self, now_s: float) -> InFlight:
        keep = (self._sent_s <= now_s) & (self._ended_s > now_s)
        first_s = self._first_s[keep]
        return InFlight(
            self._scheduled_s[keep],
            np.where(first_s <= now_s, first_s, np.nan),
            self._tokens[keep],
        )
