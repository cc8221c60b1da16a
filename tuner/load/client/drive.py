"""Drives a server with a load until the watch says that the steady window is over."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator

from tuner.load.client.client import ClientLimits, Exchange
from tuner.load.client.client_watch import ClientWatch, DriveReport
from tuner.load.client.connections import Connections
from tuner.load.client.health import ServerHealth
from tuner.records import (
    InFlight,
    InformedWatch,
    Load,
    Request,
    RequestRecord,
    RequestState,
    SteadyWatch,
)
from tuner.servers.server import Endpoint

# How often the watch and the server's health are looked at.
_LOOK_S = 0.05
# After a failure a closed-loop client waits, so that a dead server is not asked in a busy loop.
_FAILURE_PAUSE_S = 0.1
# uvloop's timers are of whole milliseconds, and may be early by half of one.
_TIMER_STEP_S = 1e-3
# So long the load goes on at the most until the window's end has been sampled.
_LONGEST_TAIL_S = 2.0


async def drive(
    server: Endpoint,
    requests: Iterator[Request],
    load: Load,
    watch: SteadyWatch,
    *,
    limits: ClientLimits | None = None,
    is_sampled: Callable[[float], bool] | None = None,
) -> DriveReport:
    """Offer `requests` to the server; return a record of each one, and how late the client was.

    The load ends at `watch.window_end_s`, or when `requests` is used up; requests under way are
    cancelled (which aborts them in the server) and are CUT. It ends early when the server is gone:
    then requests under way are FAILED, and the watch has no end or one in the future.

    The load goes on past the window's end until `is_sampled` says that the end has been sampled:
    power sampled before and after it is to be that of the load.
    """
    limits = limits or ClientLimits()
    async with Connections(limits.connect_s) as connections, ClientWatch() as client:
        run = _Run(connections, server, load, watch, limits, is_sampled)
        try:
            records = await run.until_the_end(requests)
        except BaseExceptionGroup as group:
            # A task's own fault (the watch raised, say): the first one is the cause.
            raise group.exceptions[0] from None
        return client.report(records, load, watch.window_start_s, watch.window_end_s)


class _Run:
    """The state of one load."""

    def __init__(
        self,
        connections: Connections,
        server: Endpoint,
        load: Load,
        watch: SteadyWatch,
        limits: ClientLimits,
        is_sampled: Callable[[float], bool] | None,
    ) -> None:
        self._connections = connections
        self._server = server
        self._load = load
        self._watch = watch
        self._informed = watch if isinstance(watch, InformedWatch) else None
        self._limits = limits
        self._is_sampled = is_sampled
        self._health = ServerHealth(load, limits)
        self._under_way: set[Exchange] = set()
        self._first_tokens_s: dict[Exchange, float] = {}  # of those under way, as far as asked for
        self._records: list[RequestRecord] = []

    async def until_the_end(self, requests: Iterator[Request]) -> tuple[RequestRecord, ...]:
        """Run the load, end it, and return the records by request id."""
        if self._informed is not None:
            self._informed.set_in_flight_source(self._requests_in_flight)
        start_s = time.monotonic()
        self._watch.started(start_s)
        offering = asyncio.create_task(self._offer(requests, start_s))
        try:
            await self._until_over(offering)
        finally:
            offering.cancel()
            await asyncio.wait([offering])
        if not offering.cancelled():
            offering.result()  # raises what a task has raised
        self._end_under_way()
        return tuple(sorted(self._records, key=lambda record: record.request_id))

    async def _offer(self, requests: Iterator[Request], start_s: float) -> None:
        """Send all requests, and wait for their ends."""
        async with asyncio.TaskGroup() as group:
            if self._load.concurrency is None:
                await self._open_arrivals(group, requests, start_s)
                return
            for _ in range(self._load.concurrency):
                group.create_task(self._closed_client(requests))

    async def _until_over(self, offering: asyncio.Task[None]) -> None:
        while not offering.done() and self._health.gone is None:
            now_s = time.monotonic()
            end_s = self._watch.window_end_s
            if end_s is not None and now_s >= end_s and self._is_settled(end_s, now_s):
                return
            self._health.check_silence(self._under_way, now_s)
            to_end_s = _LOOK_S if end_s is None or end_s <= now_s else end_s - now_s
            await asyncio.sleep(min(_LOOK_S, to_end_s))

    def _is_settled(self, end_s: float, now_s: float) -> bool:
        """Say whether the load of a window that is over can be ended."""
        if self._is_sampled is None or now_s >= end_s + _LONGEST_TAIL_S:
            return True
        is_early = self._informed is not None and self._informed.ended_early is not None
        return is_early or self._is_sampled(end_s)

    async def _closed_client(self, requests: Iterator[Request]) -> None:
        for request in requests:
            exchange = Exchange(request, self._server, time.monotonic())
            await self._exchange(exchange)
            if exchange.error is not None:
                await asyncio.sleep(_FAILURE_PAUSE_S)
        self._exhausted()

    async def _open_arrivals(
        self, group: asyncio.TaskGroup, requests: Iterator[Request], start_s: float
    ) -> None:
        assert self._load.request_rate is not None
        for request in requests:
            scheduled_s = start_s + request.arrival_s / self._load.request_rate
            # Also when it is late already: the answers must be read meanwhile.
            await asyncio.sleep(0.0)
            while (left_s := scheduled_s - time.monotonic()) > 0.0:  # noqa: ASYNC110 - no event: time
                await asyncio.sleep(max(left_s, _TIMER_STEP_S))
            exchange = Exchange(request, self._server, scheduled_s)
            group.create_task(self._exchange(exchange))
        self._exhausted()

    def _exhausted(self) -> None:
        if self._informed is not None:
            self._informed.exhausted(time.monotonic())

    async def _exchange(self, exchange: Exchange) -> None:
        exchange.sent_s = time.monotonic()
        self._under_way.add(exchange)
        self._watch.sent(exchange.sent_s)
        await exchange.run(self._connections, self._limits)
        self._under_way.discard(exchange)
        self._first_tokens_s.pop(exchange, None)
        record = exchange.record(time.monotonic())
        self._records.append(record)
        if self._informed is not None and record.state is RequestState.DONE:
            first_s, last_s = record.token_times_s[[0, -1]].tolist()
            tokens = record.token_times_s.size
            self._informed.answered(last_s, record.scheduled_s, first_s, tokens)
        self._health.ended(exchange)
        self._watch.finished(time.monotonic())

    def _requests_in_flight(self) -> InFlight:
        return InFlight.of(
            (e.scheduled_s, self._first_token_of(e), e.request.output_tokens)
            for e in self._under_way
        )

    def _first_token_of(self, exchange: Exchange) -> float:
        """Return when the first token arrived, NaN before; a record is made of each once only."""
        known_s = self._first_tokens_s.get(exchange)
        if known_s is not None:
            return known_s
        if exchange.last_token_s is None:
            return math.nan
        first_s = float(exchange.record(exchange.last_token_s).token_times_s[0])
        self._first_tokens_s[exchange] = first_s
        return first_s

    def _end_under_way(self) -> None:
        self._health.check_end(list(self._under_way), self._records, time.monotonic())
        for exchange in self._under_way:
            if self._health.gone is not None:
                exchange.fail(f"the load was ended early: {self._health.gone}")
            self._records.append(exchange.record(time.monotonic()))
        self._under_way.clear()
