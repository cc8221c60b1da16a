from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
import pytest
from helpers.endpoints import served

from tuner.load.client.client_watch import (
    ClientWatch,
    lateness_s,
)
from tuner.load.client.drive import drive
from tuner.records import Load, Request, RequestRecord, RequestState

CLOSED, OPEN = Load(concurrency=1), Load(request_rate=1.0)


def record(scheduled_s: float, late_s: float) -> RequestRecord:
    sent_s = scheduled_s + late_s
    return RequestRecord(0, 1, 1, scheduled_s, sent_s, np.empty(0), sent_s, RequestState.CUT)


def test_lateness_is_of_the_requests_planned_in_the_window() -> None:
    records = [record(0.9, 9.0), record(1.0, 0.1), record(2.0, 0.2), record(2.1, 9.0)]
    assert lateness_s(records, 1.0, 2.0) == pytest.approx([0.1, 0.2])


async def blocked(block_s: float) -> ClientWatch:
    async with ClientWatch() as watch:
        await asyncio.sleep(0.3)
        time.sleep(block_s)  # noqa: ASYNC251
        await asyncio.sleep(0.05)
    return watch


async def test_a_blocked_loop_is_seen() -> None:
    watch = await blocked(0.3)
    report = watch.report((), CLOSED, None, None)
    assert report.lag_p99_ms is not None
    assert report.lag_p99_ms > 100.0
    assert report.late_p99_ms is None


async def test_the_ticks_that_a_block_swallowed_count() -> None:
    async with ClientWatch() as watch:
        await asyncio.sleep(0.02)
        time.sleep(0.4)  # noqa: ASYNC251
        await asyncio.sleep(0.02)
    # A handful of wakes: by themselves too few to tell, and the longest block of all unseen.
    lag_ms = watch.report((), CLOSED, None, None).lag_p99_ms
    assert lag_ms is not None
    assert lag_ms > 300.0


async def test_what_was_before_or_after_the_window_does_not_count() -> None:
    watch = await blocked(0.3)
    end_s = time.monotonic()
    whole = watch.report((), CLOSED, None, None).lag_p99_ms
    before = watch.report((), CLOSED, None, end_s - 0.4).lag_p99_ms
    assert whole is not None
    # Other processes may have delayed us as well, but not for so long.
    assert before is None or before < whole
    assert watch.report((), CLOSED, end_s + 1.0, None).lag_p99_ms is None


async def test_a_block_that_outlasts_the_window_counts() -> None:
    async with ClientWatch() as watch:
        await asyncio.sleep(0.3)
        end_s = time.monotonic() + 0.05
        time.sleep(0.3)  # noqa: ASYNC251
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.02)
    lag_ms = watch.report((), CLOSED, None, end_s).lag_p99_ms
    assert lag_ms is not None
    assert lag_ms > 100.0


async def test_sends_that_were_late_are_seen_in_an_open_loop_only() -> None:
    async with ClientWatch() as watch:
        await asyncio.sleep(0)
    records = tuple(record(float(i), 0.5) for i in range(30))
    report = watch.report(records, OPEN, 0.0, 29.0)
    assert report.late_p99_ms == pytest.approx(500.0)
    closed = watch.report(records, CLOSED, 0.0, 29.0)
    assert closed.late_p99_ms is None
    assert watch.report(records[:19], OPEN, 0.0, 29.0).late_p99_ms is None


class Window:
    """A load of one second whose window is all of it."""

    window_start_s: float | None = None
    window_end_s: float | None = None

    def started(self, now_s: float) -> None:
        self.window_start_s, self.window_end_s = now_s, now_s + 1.0

    def sent(self, now_s: float) -> None: ...

    def finished(self, now_s: float) -> None: ...


async def test_the_report_says_how_late_a_busy_client_was(
    server, make_request: Callable[..., Request]
) -> None:
    async def keep_busy() -> None:
        while True:
            time.sleep(0.04)  # noqa: ASYNC251
            await asyncio.sleep(0.02)

    requests = (make_request(i, arrival_s=float(i)) for i in range(1000))
    busy = asyncio.create_task(keep_busy())
    report = await drive(served(server.url), requests, Load(request_rate=60.0), Window())
    busy.cancel()
    assert len(report.records) >= 20
    assert report.lag_p99_ms is not None
    assert report.late_p99_ms is not None
    assert min(report.lag_p99_ms, report.late_p99_ms) > 15.0
