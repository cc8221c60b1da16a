"""One load on one running server: requests, power and the server's own counters, side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import aiohttp
import numpy as np

from tuner.devices.emulated.activity import Activity, ActivityDriven
from tuner.devices.meter import Meter, PowerReading
from tuner.load.client.client import ClientLimits
from tuner.load.client.drive import drive
from tuner.measurement.client_verdict import judge_client, too_few_requests
from tuner.measurement.listener import NOBODY, LoadListener
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import (
    DraftCounts,
    Load,
    LoadSnapshot,
    PowerTimeline,
    RawRun,
    Request,
    ServerTimeline,
    Source,
)
from tuner.servers.server import Endpoint, ServerUnreachableError

POWER_PERIOD_S = 0.1
SERVER_PERIOD_S = 0.25
SNAPSHOT_PERIOD_S = 1.0
_LAST_READING_S = 2.0
_SETTLE_SHARE = 1.0 / 6.0  # of an idle window, before it: clocks of the load before


@dataclass(slots=True)
class _Samples:
    """What the two samplers have seen so far. Power itself is kept by the meter."""

    first_reading: PowerReading | None = None
    newest_reading: PowerReading | None = None
    server: list[tuple[float, float, float]] = field(default_factory=list)
    drafts: list[tuple[float, ...]] = field(default_factory=list)  # as long, or empty
    computed: list[tuple[float, float]] = field(default_factory=list)  # CPU time of this thread
    report: Activity | None = None
    preemptions: list[float] = field(default_factory=list)  # since the server started

    def busy_share(self, start_s: float | None, end_s: float) -> float | None:
        """Return which share of the time this thread computed, None where that is not known."""
        times_s, computed_s = np.array(self.computed, dtype=np.float64).reshape(-1, 2).T
        if start_s is None or end_s <= start_s or times_s.size < 2:
            return None
        before_s, after_s = np.interp([start_s, end_s], times_s, computed_s)
        return float(after_s - before_s) / (end_s - start_s)

    def reach(self, end_s: float) -> bool:
        """Say whether power was sampled at this time or later."""
        return self.newest_reading is not None and self.newest_reading.time_s >= end_s

    def take(self, reading: PowerReading) -> None:
        """Remember the newest reading."""
        self.first_reading = self.first_reading or reading
        self.newest_reading = reading

    def power_timeline(self, meter: Meter) -> PowerTimeline:
        """Return every sample that the meter took meanwhile, whether this loop saw it or not."""
        first, newest = self.first_reading, self.newest_reading
        if first is None or newest is None:
            now_s = time.monotonic()
            return meter.timeline(now_s, now_s)
        return meter.timeline(first.time_s, newest.time_s)

    def preempted(self) -> float | None:
        """Return how often a request was preempted during the load; None if it is not reported."""
        return self.preemptions[-1] - self.preemptions[0] if self.preemptions else None

    def server_timeline(self) -> ServerTimeline:
        columns = np.array(self.server, dtype=np.float64).reshape(-1, 3).T
        drafts = None
        if self.drafts and len(self.drafts) == len(self.server):
            drafts = _draft_counts(self.drafts)
        return ServerTimeline(columns[0], columns[1], columns[2], drafts)


def _draft_counts(rows: Sequence[tuple[float, ...]]) -> DraftCounts:
    """Return the columns that every row has."""
    drafts, drafted, accepted, *accepted_at = map(np.array, zip(*rows, strict=False))
    return DraftCounts(drafts, drafted, accepted, tuple(accepted_at))


async def run_load(
    target: Endpoint,
    requests: Iterator[Request],
    load: Load,
    meter: Meter,
    plan: WindowPlan,
    *,
    latency_source: Source,
    listener: LoadListener = NOBODY,
) -> tuple[RawRun, tuple[str, ...]]:
    """Drive the load until its steady window is over; return the records and warnings.

    `latency_source` says whether the server is a real one or an emulator. The listener is told of
    the load about once a second, in another thread.
    Raises `OperatorNeededError` if the meter stops answering.
    """
    watch = SteadyWindow(plan)
    samples = _Samples()
    first = next(requests)
    requests = chain([first], requests)
    output = first.output
    limits = ClientLimits.of(output)
    async with aiohttp.ClientSession() as session:
        await _look_at_server(session, target, samples, meter)
        power = asyncio.create_task(_sample_power(meter, samples))
        server = asyncio.create_task(_sample_server(session, target, samples, meter, watch))
        driving = asyncio.create_task(
            drive(target, requests, load, watch, limits=limits, is_sampled=samples.reach)
        )
        showing = asyncio.create_task(
            _show((meter.source, latency_source), samples, watch, listener)
        )
        tasks: tuple[asyncio.Task[Any], ...] = (power, server, driving, showing)
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()  # a sampler ends only by an error
            report = driving.result()
            await _until_sampled(samples, watch.window_end_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    end_s = watch.window_end_s
    if end_s is None:
        raise RuntimeError("the driver returned before it started the load")
    watch.over(min(end_s, time.monotonic()))
    start_s = watch.window_start_s
    window_s = None if start_s is None else end_s - start_s
    client = judge_client(report, samples.busy_share(start_s, end_s), window_s)
    invalid = client.invalid
    if start_s is None and watch.ended_early is None:
        invalid = too_few_requests(report.records, plan)
    run = RawRun(
        requests=report.records,
        power=samples.power_timeline(meter),
        server=samples.server_timeline(),
        window_start_s=end_s if start_s is None else start_s,
        window_end_s=end_s,
        latency_source=latency_source,
        ended_early=watch.ended_early,
        invalid=invalid,
        preemptions=samples.preempted(),
        output=output,
    )
    warnings = () if invalid is not None else watch.warnings
    return run, warnings if client.warning is None else (*warnings, client.warning)


async def run_idle(
    target: Endpoint, meter: Meter, window_s: float, *, latency_source: Source
) -> RawRun:
    """Sample power and counters while nothing is sent, for `window_s` after a sixth of it."""
    samples = _Samples()
    start_s = time.monotonic() + _SETTLE_SHARE * window_s
    end_s = start_s + window_s
    async with aiohttp.ClientSession() as session:
        await _look_at_server(session, target, samples, meter)
        tasks = (
            asyncio.create_task(_sample_power(meter, samples)),
            asyncio.create_task(_sample_server(session, target, samples, meter, None)),
        )
        try:
            await asyncio.wait(tasks, timeout=end_s - time.monotonic())
            await _until_sampled(samples, end_s)
            for task in tasks:
                if task.done():
                    task.result()  # a sampler ends only by an error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return RawRun(
        requests=(),
        power=samples.power_timeline(meter),
        server=samples.server_timeline(),
        window_start_s=start_s,
        window_end_s=end_s,
        latency_source=latency_source,
        preemptions=samples.preempted(),
    )


async def _until_sampled(samples: _Samples, end_s: float | None) -> None:
    """Wait for a power reading past the window's end; without one the reducer says so."""
    deadline_s = time.monotonic() + _LAST_READING_S
    while end_s is not None and time.monotonic() < deadline_s:
        if samples.reach(end_s):
            return
        await asyncio.sleep(POWER_PERIOD_S / 2)


async def _sample_power(meter: Meter, samples: _Samples) -> None:
    due_s = time.monotonic()
    while True:
        now_s = time.monotonic()
        samples.computed.append((now_s, time.thread_time()))
        reading = meter.read(now_s)
        if reading is not None:
            samples.take(reading)
        due_s = max(due_s + POWER_PERIOD_S, now_s)
        await asyncio.sleep(due_s - now_s)


async def _show(
    sources: tuple[Source, Source],
    samples: _Samples,
    watch: SteadyWindow,
    listener: LoadListener,
) -> None:
    """Tell the listener, which may wait for a disk; this thread must not."""
    power_source, latency_source = sources
    while True:
        await asyncio.sleep(SNAPSHOT_PERIOD_S)
        reading = samples.newest_reading
        snapshot = LoadSnapshot(
            power_w=None if reading is None else reading.power_w,
            sm_clock_mhz=None if reading is None else reading.sm_clock_mhz,
            ttft_ms=watch.latest_ms("ttft_ms"),
            tpot_ms=watch.latest_ms("tpot_ms"),
            power_source=power_source,
            latency_source=latency_source,
        )
        await asyncio.to_thread(listener.load_sampled, snapshot)


async def _sample_server(
    session: aiohttp.ClientSession,
    target: Endpoint,
    samples: _Samples,
    meter: Meter,
    watch: SteadyWindow | None,
) -> None:
    period_s = meter.activity_period_s if isinstance(meter, ActivityDriven) else SERVER_PERIOD_S
    while True:
        before = samples.report
        await asyncio.sleep(period_s)
        await _look_at_server(session, target, samples, meter)
        after, reading = samples.report, samples.newest_reading
        if watch is None or after is before or after is None or reading is None:
            continue
        if after.generation_tokens is None:
            continue
        # both as they were when the newer of them was read
        energy_j = reading.energy_j + reading.power_w * (after.time_s - reading.time_s)
        watch.sampled(after.time_s, energy_j, after.generation_tokens)


async def _look_at_server(
    session: aiohttp.ClientSession, target: Endpoint, samples: _Samples, meter: Meter
) -> None:
    """Take one report; a server that is too busy to give one now is asked again."""
    asked_s = time.monotonic()
    try:
        report = await target.api.sample(session, target.base_url)
    except ServerUnreachableError:
        return
    if report.running is None or report.waiting is None:
        return
    now_s = (asked_s + time.monotonic()) / 2
    samples.server.append((now_s, report.running, report.waiting))
    drafts = (report.drafts, report.drafted_tokens, report.accepted_tokens)
    if drafts[0] is not None and drafts[1] is not None and drafts[2] is not None:
        samples.drafts.append((drafts[0], drafts[1], drafts[2], *report.accepted_at))
    if report.preemptions is not None:
        samples.preemptions.append(report.preemptions)
    samples.report = Activity(
        time_s=now_s,
        running=report.running,
        prompt_tokens=report.prompt_tokens,
        generation_tokens=report.generation_tokens,
        energy_j=report.emulated_energy_j,
        power_w=report.emulated_power_w,
        sm_clock_mhz=report.emulated_sm_clock_mhz,
    )
    if isinstance(meter, ActivityDriven):
        meter.follow(samples.report)
