from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import pytest
from aiohttp import web
from helpers.driving import drive_records
from helpers.endpoints import served

import tuner.load
from tuner.load.client.client import ClientLimits
from tuner.load.workload import load_workload
from tuner.records import Load, Request, RequestRecord, RequestState

LIMITS = ClientLimits(connect_s=0.5, first_token_s=5.0, silence_s=5.0)
MakeRequest = Callable[..., Request]


class Watch:
    """Ends the load `lasts_s` after it began, or after so many finished requests."""

    def __init__(self, lasts_s: float = 3600.0, finished: int | None = None) -> None:
        self.events: list[tuple[str, float]] = []
        self.window_start_s: float | None = None
        self.window_end_s: float | None = None
        self._lasts_s = lasts_s
        self._finished = finished

    def started(self, now_s: float) -> None:
        self.events.append(("started", now_s))
        self.window_start_s = now_s
        if self._finished is None:
            self.window_end_s = now_s + self._lasts_s

    def sent(self, now_s: float) -> None:
        self.events.append(("sent", now_s))

    def finished(self, now_s: float) -> None:
        self.events.append(("finished", now_s))
        if Counter(kind for kind, _ in self.events)["finished"] == self._finished:
            self.window_end_s = now_s

    def counts(self) -> Counter[str]:
        return Counter(kind for kind, _ in self.events)


@pytest.fixture
def endless(make_request: MakeRequest) -> Callable[..., Iterator[Request]]:
    def make(output_tokens: int = 4, gap_s: float = 1.0) -> Iterator[Request]:
        return (make_request(i, output_tokens, arrival_s=(i + 1) * gap_s) for i in count())

    return make


def states(records: tuple[RequestRecord, ...]) -> Counter[RequestState]:
    return Counter(record.state for record in records)


def tasks_of_the_load() -> list[asyncio.Task[object]]:
    package = str(Path(tuner.load.__file__).parent)
    return [t for t in asyncio.all_tasks() if t.get_coro().cr_code.co_filename.startswith(package)]


async def test_a_closed_load_keeps_its_concurrency_and_cuts_the_rest(
    server, endless, eventually
) -> None:
    async def script(talk):
        await talk.answer(per_token_s=0.02)

    server.script = script
    watch = Watch(finished=9)
    records = await drive_records(
        served(server.url), endless(), Load(concurrency=3), watch, limits=LIMITS
    )
    assert server.most_under_way == 3
    found = states(records)
    assert found[RequestState.CUT] == 3
    assert found[RequestState.DONE] >= 9
    assert found[RequestState.FAILED] == 0
    assert [r.request_id for r in records] == list(range(len(records)))
    assert watch.counts() == {
        "started": 1,
        "sent": len(records),
        "finished": found[RequestState.DONE],
    }
    times_s = [time_s for _, time_s in watch.events]
    assert all(a <= b for a, b in pairwise(times_s))
    for record in records:
        assert record.scheduled_s <= record.sent_s <= record.ended_s
        assert record.ended_s <= watch.window_end_s + 1.0
    for record in records[-3:]:
        assert record.state is RequestState.CUT
        assert len(record.token_times_s) < 4
        assert record.ended_s >= watch.window_end_s
    await eventually(lambda: server.disconnected == 3 and server.under_way == 0)


async def test_in_a_closed_load_the_next_is_scheduled_when_one_ends(server, endless) -> None:
    async def script(talk):
        await talk.answer(per_token_s=0.01)

    server.script = script
    watch = Watch(finished=4)
    records = await drive_records(
        served(server.url), endless(), Load(concurrency=1), watch, limits=LIMITS
    )
    done = [r for r in records if r.state is RequestState.DONE]
    for before, after in pairwise(done):
        assert before.ended_s <= after.scheduled_s <= after.sent_s


async def test_the_window_may_be_ended_by_what_was_seen(server, endless) -> None:
    watch = Watch(finished=10)
    records = await drive_records(
        served(server.url), endless(), Load(concurrency=2), watch, limits=LIMITS
    )
    assert states(records)[RequestState.DONE] >= 10
    assert watch.window_end_s is not None


async def test_an_open_load_does_not_wait_for_a_slow_server(server, endless) -> None:
    async def script(talk):
        await asyncio.sleep(30)

    server.script = script
    watch = Watch(lasts_s=0.5)
    load = Load(request_rate=40.0)
    records = await drive_records(served(server.url), endless(), load, watch, limits=LIMITS)
    assert 15 <= len(records) <= 21
    assert states(records) == {RequestState.CUT: len(records)}
    assert server.most_under_way >= 15
    start_s = watch.events[0][1]
    for record in records:
        planned_s = start_s + (record.request_id + 1) / 40.0
        assert record.scheduled_s == pytest.approx(planned_s, abs=1e-6)
        assert record.sent_s >= record.scheduled_s
    late_s = sorted(r.sent_s - r.scheduled_s for r in records)
    assert late_s[len(late_s) // 2] < 0.1


async def test_an_open_load_late_by_its_own_fault_says_so(server, endless) -> None:
    """Sends that could not be made in time keep their planned time."""

    async def block() -> None:
        await asyncio.sleep(0.1)
        time.sleep(0.2)  # noqa: ASYNC251

    watch = Watch(lasts_s=0.6)
    load = Load(request_rate=50.0)
    blocker = asyncio.create_task(block())
    records = await drive_records(served(server.url), endless(), load, watch, limits=LIMITS)
    await blocker
    assert max(r.sent_s - r.scheduled_s for r in records) > 0.1
    assert len(records) >= 20


async def test_a_finite_list_of_requests_is_finished(server, make_request: MakeRequest) -> None:
    for load in (Load(concurrency=2), Load(request_rate=1000.0)):
        requests = iter([make_request(i, arrival_s=float(i)) for i in range(7)])
        records = await drive_records(served(server.url), requests, load, Watch(), limits=LIMITS)
        assert states(records) == {RequestState.DONE: 7}


@pytest.mark.parametrize(
    "load", [Load(concurrency=1), Load(concurrency=50), Load(request_rate=100.0)]
)
async def test_a_load_on_nobody_ends_soon(dead_url: str, endless, load: Load) -> None:
    records = await drive_records(served(dead_url), endless(), load, Watch(), limits=LIMITS)
    assert 3 <= len(records) <= 100
    assert states(records) == {RequestState.FAILED: len(records)}


async def test_a_dead_server_is_not_asked_in_a_busy_loop(server, endless) -> None:
    async def script(talk):
        return web.Response(status=500, text="engine is dead")

    server.script = script
    started_s = time.monotonic()
    records = await drive_records(
        served(server.url), endless(), Load(concurrency=4), Watch(), limits=LIMITS
    )
    # 12 failures by 4 clients: two pauses.
    assert time.monotonic() - started_s >= 0.2
    assert 12 <= len(records) <= 16
    assert all("HTTP 500: engine is dead" in str(r.error) for r in records)


async def test_a_server_that_fails_between_good_answers_is_used_to_the_end(server, endless) -> None:
    async def script(talk):
        if len(server.talks) % 2:
            return web.Response(status=503, text="busy")
        return await talk.answer()

    server.script = script
    watch = Watch(finished=20)
    records = await drive_records(
        served(server.url), endless(), Load(concurrency=4), watch, limits=LIMITS
    )
    assert states(records)[RequestState.DONE] >= 8
    assert states(records)[RequestState.FAILED] >= 8


async def test_a_frozen_server_ends_the_load(server, endless) -> None:
    async def script(talk):
        if len(server.talks) > 4:
            await asyncio.sleep(30)
        await talk.answer()

    server.script = script
    limits = replace(LIMITS, silence_s=0.4)
    records = await drive_records(
        served(server.url), endless(), Load(concurrency=2), Watch(), limits=limits
    )
    assert states(records) == {RequestState.DONE: 4, RequestState.FAILED: 2}
    for record in records[-2:]:
        assert "the load was ended early: 2 requests under way and not one token" in record.error


async def test_a_server_that_dies_mid_stream_yields_no_done_request(server, endless) -> None:
    async def script(talk):
        await talk.tokens(2)

    server.script = script
    records = await drive_records(
        served(server.url), endless(), Load(concurrency=2), Watch(), limits=LIMITS
    )
    assert states(records) == {RequestState.FAILED: len(records)}
    assert "stream closed without finish reason after 2 of 4 tokens" in records[0].error


@pytest.mark.parametrize("load", [Load(concurrency=5), Load(request_rate=50.0)])
async def test_cancelling_leaves_no_task_behind(server, endless, eventually, load: Load) -> None:
    async def script(talk):
        await talk.tokens(1)
        await asyncio.sleep(30)

    server.script = script
    before = asyncio.all_tasks()
    driving = asyncio.create_task(
        drive_records(served(server.url), endless(), load, Watch(), limits=LIMITS)
    )
    await eventually(lambda: server.under_way > 3)
    assert len(tasks_of_the_load()) > 3
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    assert tasks_of_the_load() == []
    await eventually(lambda: server.under_way == 0 and asyncio.all_tasks() <= before)


async def test_a_watch_that_raises_is_heard(dead_url: str, endless) -> None:
    class Broken(Watch):
        def finished(self, now_s: float) -> None:
            raise RuntimeError("the watch is broken")

    with pytest.raises(RuntimeError, match="the watch is broken"):
        await drive_records(
            served(dead_url), endless(), Load(concurrency=3), Broken(), limits=LIMITS
        )
    assert tasks_of_the_load() == []


async def test_the_shipped_smoke_workload_runs(server) -> None:
    smoke = load_workload("smoke")
    watch = Watch(finished=50)
    records = await drive_records(
        served(server.url), smoke.requests(), smoke.default_load, watch, limits=LIMITS
    )
    assert states(records)[RequestState.FAILED] == 0
    assert [len(t.asked["prompt"]) for t in server.talks[:8]] == [
        r.prompt_tokens for r in records[:8]
    ]
