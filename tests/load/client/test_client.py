from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from aiohttp import web
from helpers.endpoints import served

from tuner.load.client.client import ClientLimits, Exchange
from tuner.load.client.connections import Connections
from tuner.records import Request, RequestRecord, RequestState

LIMITS = ClientLimits(connect_s=0.4, first_token_s=0.5, silence_s=0.3)
MakeRequest = Callable[..., Request]


async def send(url: str, request: Request, limits: ClientLimits = LIMITS) -> RequestRecord:
    async with Connections(limits.connect_s) as connections:
        exchange = Exchange(request, served(url), scheduled_s=time.monotonic())
        await exchange.run(connections, limits)
        record = exchange.record(time.monotonic())
        assert (exchange.error, exchange.last_token_s) == (
            record.error,
            record.token_times_s[-1] if len(record.token_times_s) else None,
        )
        return record


def failed(record: RequestRecord, reason: str, tokens: int) -> None:
    assert record.state is RequestState.FAILED
    assert record.error is not None
    assert reason in record.error
    assert len(record.token_times_s) == tokens


async def test_a_good_answer_is_done_and_timed(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await talk.answer(per_token_s=0.02)

    server.script = script
    record = await send(server.url, make_request(7, output_tokens=8))
    assert (record.state, record.error) == (RequestState.DONE, None)
    assert (record.request_id, record.prompt_tokens, record.output_tokens) == (7, 8, 8)
    times_s = record.token_times_s
    late_s = times_s - np.array(server.talks[0].wrote_s)
    assert len(times_s) == 8
    assert late_s.min() >= 0
    assert np.median(late_s) < 0.05
    order_s = [record.scheduled_s, record.sent_s, *times_s, record.ended_s]
    assert all(a <= b for a, b in pairwise(order_s))


async def test_it_asks_for_exactly_what_is_wanted(server, make_request: MakeRequest) -> None:
    await send(server.url + "/", make_request(output_tokens=6))
    asked = server.talks[0].asked
    assert asked["model"] == "served"
    assert asked["prompt"] == list(range(300, 308))
    assert asked["max_tokens"] == 6
    assert asked["ignore_eos"] is True
    assert asked["return_token_ids"] is True
    assert asked["stream"] is True
    assert asked["stream_options"] == {"include_usage": True}


async def test_many_tokens_in_a_chunk_are_all_counted(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await talk.answer(per_token_s=0.02, per_chunk=4)

    server.script = script
    record = await send(server.url, make_request(output_tokens=10))
    assert record.state is RequestState.DONE
    assert len(record.token_times_s) == 10
    assert len(set(record.token_times_s)) == 3


async def test_a_line_may_arrive_in_pieces(server, make_request: MakeRequest) -> None:
    line = 'data: {"choices":[{"token_ids":[9],"text":"é","finish_reason":"length"}]}\n\n'.encode()

    async def script(talk):
        inside = line.index("é".encode()) + 1
        await talk.raw(line[:inside])
        await asyncio.sleep(0.05)
        await talk.raw(line[inside:])
        await talk.done()

    server.script = script
    assert (await send(server.url, make_request(output_tokens=1))).state is RequestState.DONE


async def test_a_stream_that_just_ends_is_no_answer(server, make_request: MakeRequest) -> None:
    """What a server does whose engine has died: 200, and the stream closes."""

    async def script(talk):
        await talk.tokens(3)

    server.script = script
    record = await send(server.url, make_request())
    failed(record, "stream closed without finish reason after 3 of 5 tokens", tokens=3)


async def test_a_connection_that_breaks(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await talk.tokens(2)
        await asyncio.sleep(0.05)
        talk.http.transport.abort()

    server.script = script
    failed(await send(server.url, make_request()), "connection lost after 2 of 5 tokens", tokens=2)


async def test_a_short_answer_with_a_finish_reason(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await talk.tokens(4, "stop")
        await talk.done()

    server.script = script
    failed(await send(server.url, make_request()), "finished ('stop') after 4 of 5", tokens=4)


async def test_a_usage_that_disagrees(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await talk.tokens(5, "length")
        await talk.usage(4)
        await talk.done()

    server.script = script
    failed(await send(server.url, make_request()), "usage says 4 completion_tokens", tokens=5)


async def test_an_error_in_the_stream(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await talk.tokens(1)
        await talk.event(error={"message": "EngineCore encountered an issue"})
        await talk.done()

    server.script = script
    failed(await send(server.url, make_request()), "error in the stream: EngineCore", tokens=1)


async def test_garbage_ends_the_request_at_once(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await talk.raw(b"data: {garbage\n\n")
        await asyncio.sleep(30)

    server.script = script
    failed(await send(server.url, make_request()), "malformed line in the stream", tokens=0)


async def test_an_http_error_is_shown_with_its_body(server, make_request: MakeRequest) -> None:
    async def script(talk):
        return web.Response(status=500, text="engine is dead " + "x" * 9000)

    server.script = script
    record = await send(server.url, make_request())
    failed(record, "HTTP 500: engine is dead xxx", tokens=0)
    assert len(record.error) == len("HTTP 500: ") + 200


async def test_an_http_error_without_an_end_is_not_read_to_it(
    server, make_request: MakeRequest
) -> None:
    async def script(talk):
        response = web.StreamResponse(status=503)
        await response.prepare(talk.http)
        with suppress(ConnectionError):
            while True:
                await response.write(b"busy " * 1000)
        return response

    server.script = script
    began_s = time.monotonic()
    failed(await send(server.url, make_request()), "HTTP 503: busy busy", tokens=0)
    assert time.monotonic() - began_s < LIMITS.first_token_s


async def test_nobody_listens(dead_url: str, make_request: MakeRequest) -> None:
    async with Connections(LIMITS.connect_s) as connections:
        exchange = Exchange(make_request(), served(dead_url), time.monotonic())
        await exchange.run(connections, LIMITS)
    assert exchange.refused
    failed(exchange.record(0.0), "cannot connect: connection refused", tokens=0)


async def test_nobody_accepts(make_request: MakeRequest) -> None:
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # A full backlog: further connections are neither accepted nor refused.
        for _ in range(4):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        record = await send(f"http://127.0.0.1:{listener.getsockname()[1]}", make_request())
    failed(record, "timed out: no connection within 0.4 s", tokens=0)


async def test_a_server_that_never_answers(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await asyncio.sleep(30)

    server.script = script
    record = await send(server.url, make_request())
    failed(record, "timed out: no token within 0.5 s", tokens=0)
    assert record.ended_s - record.sent_s == pytest.approx(0.5, abs=0.2)


async def test_chunks_without_tokens_do_not_stop_the_clock(
    server, make_request: MakeRequest
) -> None:
    async def script(talk):
        while True:
            await talk.raw(b": ping\n\n")
            await asyncio.sleep(0.02)

    server.script = script
    failed(await send(server.url, make_request()), "no token within 0.5 s", tokens=0)


async def test_a_server_that_freezes(server, make_request: MakeRequest) -> None:
    async def script(talk):
        await talk.tokens(2)
        await asyncio.sleep(30)

    server.script = script
    record = await send(server.url, make_request())
    failed(record, "timed out: silent for 0.3 s after 2 of 5 tokens", tokens=2)
    assert 0.3 <= record.ended_s - record.token_times_s[-1] < 0.6


async def test_a_slow_answer_is_no_frozen_server(server, make_request: MakeRequest) -> None:
    """The answer takes far longer than each deadline, but no pause does."""

    async def script(talk):
        await talk.answer(per_token_s=0.06)

    server.script = script
    record = await send(server.url, make_request(output_tokens=20))
    assert record.state is RequestState.DONE
    assert record.ended_s - record.sent_s > 2 * max(LIMITS.first_token_s, LIMITS.silence_s)


async def test_after_the_end_marker_the_connection_may_hang(
    server, make_request: MakeRequest
) -> None:
    async def script(talk):
        await talk.answer()
        await asyncio.sleep(30)

    server.script = script
    started_s = time.monotonic()
    record = await send(server.url, make_request(), ClientLimits(first_token_s=20, silence_s=20))
    assert time.monotonic() - started_s < 20.0  # its end is not waited for
    assert record.state is RequestState.DONE


async def test_a_cancelled_request_is_cut_with_its_tokens(
    server, make_request: MakeRequest, eventually
) -> None:
    async def script(talk):
        await talk.tokens(2)
        await asyncio.sleep(30)

    server.script = script
    limits = replace(LIMITS, silence_s=30.0)
    async with Connections(limits.connect_s) as connections:
        exchange = Exchange(make_request(), served(server.url), time.monotonic())
        task = asyncio.create_task(exchange.run(connections, limits))
        await eventually(lambda: exchange.last_token_s is not None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    record = exchange.record(99.0)
    assert (record.state, record.error, record.ended_s) == (RequestState.CUT, None, 99.0)
    assert len(record.token_times_s) == 2
    await eventually(lambda: server.disconnected == 1)


async def test_connections_are_used_again(server, make_request: MakeRequest) -> None:
    async with Connections(ClientLimits().connect_s) as connections:
        for request_id in range(5):
            exchange = Exchange(make_request(request_id), served(server.url), time.monotonic())
            await exchange.run(connections, ClientLimits())
            assert exchange.error is None
    assert len(server.talks) == 5
    assert len(server.connections) == 1


@pytest.mark.parametrize("field", ["connect_s", "first_token_s", "silence_s"])
def test_a_limit_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="more than 0 s"):
        ClientLimits(**{field: 0.0})
