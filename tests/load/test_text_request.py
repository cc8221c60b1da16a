"""Prompts that are sent as text: the server tokenizes, and says how many tokens it counted."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from helpers.endpoints import served

from tuner.load.client.client import ClientLimits, Exchange
from tuner.load.client.connections import Connections
from tuner.load.text_request import estimated_prompt_tokens, estimated_tokens, stand_in_ids
from tuner.records import Message, RequestRecord, RequestState, TextRequest
from tuner.servers.openai.stream import CompletionStream

LIMITS = ClientLimits(connect_s=1.0, first_token_s=1.0, silence_s=0.3)
TALK = (Message("system", "Be brief."), Message("user", "Grüße 🙂"))
PROMPT = TextRequest(3, 0.0, stand_in_ids(11), 4, "Once upon a time")
CHAT = replace(PROMPT, prompt=TALK)


async def send(url: str, request: TextRequest) -> RequestRecord:
    async with Connections(LIMITS.connect_s) as connections:
        exchange = Exchange(request, served(url), time.monotonic())
        await exchange.run(connections, LIMITS)
        return exchange.record(time.monotonic())


async def chat_chunks(talk: Any, counted: int | None = 21) -> None:
    """Answer as vLLM's chat does: first a role, then tokens, each with the usage so far."""

    def usage(tokens: int) -> dict[str, Any]:
        if counted is None:
            return {}
        return {"usage": {"prompt_tokens": counted, "completion_tokens": tokens}}

    role = {"role": "assistant", "content": ""}
    await talk.event(choices=[{"delta": role, "finish_reason": None}], **usage(0))
    for token in range(talk.tokens_asked):
        last = token + 1 == talk.tokens_asked
        choice = {
            "delta": {"content": "a "},
            "token_ids": [token],
            "finish_reason": "length" if last else None,
        }
        await talk.event(choices=[choice], **usage(token + 1))
    if counted is not None:
        await talk.event(choices=[], **usage(talk.tokens_asked))
    await talk.done()


async def test_messages_go_to_the_chat_as_they_are(server) -> None:
    server.script = chat_chunks
    record = await send(server.url, CHAT)
    assert (record.state, record.error) == (RequestState.DONE, None)
    assert record.prompt_tokens == 21
    assert len(record.token_times_s) == 4
    talk = server.talks[0]
    assert talk.http.path == "/v1/chat/completions"
    assert talk.asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße 🙂"},
    ]
    assert "prompt" not in talk.asked
    assert talk.asked["max_tokens"] == 4
    assert talk.asked["ignore_eos"] is True
    assert talk.asked["return_token_ids"] is True
    assert talk.asked["stream_options"]["include_usage"] is True


async def test_a_text_goes_to_completions(server) -> None:
    async def script(talk):
        await talk.tokens(4, "length")
        await talk.usage(4, prompt=6)
        await talk.done()

    server.script = script
    record = await send(server.url, PROMPT)
    assert (record.state, record.prompt_tokens) == (RequestState.DONE, 6)
    assert server.talks[0].http.path == "/v1/completions"
    assert server.talks[0].asked["prompt"] == "Once upon a time"


async def test_without_usage_the_prompt_is_not_known_and_the_request_failed(server) -> None:
    async def script(talk):
        await chat_chunks(talk, counted=None)

    server.script = script
    record = await send(server.url, CHAT)
    assert record.state is RequestState.FAILED
    assert "did not say how many tokens the prompt has" in str(record.error)


async def test_a_usage_that_changes_its_mind(server) -> None:
    async def script(talk):
        await talk.event(choices=[], usage={"prompt_tokens": 20, "completion_tokens": 0})
        await chat_chunks(talk)

    server.script = script
    record = await send(server.url, CHAT)
    assert "usage says 21 prompt_tokens, counted 20" in str(record.error)


async def test_a_cut_answer_has_the_prompt_that_the_server_counted(server) -> None:
    async def script(talk):
        usage = {"prompt_tokens": 21, "completion_tokens": 1}
        choice = {"delta": {"content": "a"}, "token_ids": [1], "finish_reason": None}
        await talk.event(choices=[choice], usage=usage)

    server.script = script
    record = await send(server.url, CHAT)
    assert record.state is RequestState.FAILED
    assert record.prompt_tokens == 21


async def test_text_without_ids_is_refused(server) -> None:
    async def script(talk):
        await talk.event(choices=[{"delta": {"content": "a"}, "finish_reason": None}])

    server.script = script
    record = await send(server.url, CHAT)
    assert "streams text without token_ids" in str(record.error)


@pytest.mark.parametrize("counted", [None, "7", 7.5])
def test_a_prompt_length_that_is_none_is_not_taken(counted: object) -> None:
    stream = CompletionStream(None, 1)
    stream.feed(b'data: {"choices": [], "usage": {"prompt_tokens": %s}}\n\n' % _json(counted), 1.0)
    assert stream.prompt_tokens is None


def _json(value: object) -> bytes:
    return b"null" if value is None else repr(value).replace("'", '"').encode()


def test_estimates() -> None:
    assert [estimated_tokens(t) for t in ("", "a", "abcd", "abcde", "🙂🙂")] == [1, 1, 1, 2, 2]
    assert estimated_prompt_tokens("abcde") == 2
    assert estimated_prompt_tokens(TALK) == 3 + 3
    assert len(stand_in_ids(10**9)) == 10**9
