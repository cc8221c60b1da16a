"""Probe prompts: what is asked, what counts as the same, and a real exchange over HTTP."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from helpers.endpoints import served

from tuner.measurement.outputs import (
    PROBE_TOKENS,
    PROBES,
    Agreement,
    agreement,
    clearly_below,
    probe_answers,
    probe_prompts,
)
from tuner.servers.server import NotAnsweredError


def test_the_prompts_are_fixed_and_fit_any_vocabulary() -> None:
    prompts = probe_prompts()
    assert prompts == probe_prompts()
    assert len(prompts) == PROBES == len(set(prompts))
    assert all(3 <= token < 1000 for token in itertools.chain(*prompts))


def test_agreement_counts_whole_answers_and_common_beginnings() -> None:
    ours = [(1, 2, 3, 4), (1, 2, 3, 4), (), (1, 2)]
    theirs = [(1, 2, 3, 4), (1, 2, 9, 4), (), (1, 2, 3, 4)]
    found = agreement([(ours, theirs)])
    assert found == Agreement(identical=0.5, common_prefix=(1.0 + 0.5 + 1.0 + 0.5) / 4, compared=4)
    assert agreement([]) is None


def test_a_difference_within_chance_is_no_warning() -> None:
    default = Agreement(0.98, 0.99, 64)
    assert not clearly_below(Agreement(0.95, 0.98, 64), default)
    assert clearly_below(Agreement(0.80, 0.90, 64), default)
    assert not clearly_below(Agreement(1.0, 1.0, 64), default)


@asynccontextmanager
async def answering(handler: object) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/completions", handler)  # type: ignore[arg-type]
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def test_answers_come_back_in_the_order_of_the_prompts() -> None:
    async def echo(request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["temperature"], body["max_tokens"]) == (0, PROBE_TOKENS)
        return web.json_response({"choices": [{"token_ids": body["prompt"][:PROBE_TOKENS]}]})

    async with answering(echo) as url:
        answers = await probe_answers(served(url, "m"))
    assert answers == tuple(prompt[:PROBE_TOKENS] for prompt in probe_prompts())


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, {"error": "EngineCore died"}, "HTTP 500: .*EngineCore died"),
        (200, {"choices": [{"text": "hello"}]}, "does not return token ids"),
        (200, {"choices": [{"token_ids": None}]}, "does not return token ids"),
    ],
)
async def test_what_cannot_be_compared_is_said(
    status: int, body: dict[str, object], reason: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    async with answering(answer) as url:
        with pytest.raises(NotAnsweredError, match=reason):
            await probe_answers(served(url, "m"))


async def test_nobody_there_is_said() -> None:
    with pytest.raises(NotAnsweredError, match="ClientConnector"):
        await probe_answers(served("http://127.0.0.1:9", "m"))
