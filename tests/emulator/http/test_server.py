import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientTimeout
from aiohttp.test_utils import TestClient, TestServer

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Configuration
from tuner.emulator.http.served_engine import ServedEngine
from tuner.emulator.http.served_replicas import ServedReplicas
from tuner.emulator.http.server import Server
from tuner.emulator.virtual import engine_for

BODY: dict[str, Any] = {
    "model": "served",
    "prompt": [5, 6, 7],
    "max_tokens": 4,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "return_token_ids": True,
}


@pytest.fixture
def live(llama: ModelShape, h100: Gpu) -> ServedEngine:
    configuration = Configuration(flags={"max_model_len": 4096})
    engine = engine_for(llama, h100, configuration, seed=0, keep_log=False)
    return ServedEngine(engine, speed=2.0)


@pytest.fixture
async def client(live: ServedEngine) -> AsyncIterator[TestClient[Any, Any]]:
    server = TestServer(Server(ServedReplicas([live]), "served").app())
    await server.start_server()
    await live.start()
    async with TestClient(server) as client:
        yield client
    await live.stop()


async def events(client: TestClient[Any, Any], body: dict[str, Any]) -> list[str]:
    async with client.post("/v1/completions", json=body) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        text = await response.text()
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


async def metrics(client: TestClient[Any, Any]) -> dict[str, float]:
    async with client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    plain = re.compile(r'\{(engine="0",)?model_name="served"\}')
    return {plain.sub("", name): float(value) for name, value in samples}


async def test_stream_as_vllm_sends_it(client: TestClient[Any, Any]) -> None:
    *chunks, usage, end = await events(client, BODY)
    assert end == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    first, last = parsed[0], parsed[-1]
    assert list(first) == ["id", "object", "created", "model", "choices"]
    assert first["object"] == "text_completion"
    assert first["choices"][0]["prompt_token_ids"] == [5, 6, 7]
    assert all(chunk["choices"][0]["prompt_token_ids"] is None for chunk in parsed[1:])
    assert sum(len(chunk["choices"][0]["token_ids"]) for chunk in parsed) == 4
    assert [chunk["choices"][0]["finish_reason"] for chunk in parsed[:-1]] == [None] * (
        len(parsed) - 1
    )
    assert last["choices"][0]["finish_reason"] == "length"
    final = json.loads(usage)
    assert final["choices"] == []
    assert final["usage"] == {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4}
    assert len({chunk["id"] for chunk in [*parsed, final]}) == 1


async def test_usage_and_token_ids_only_when_asked_for(client: TestClient[Any, Any]) -> None:
    body = {"model": "served", "prompt": [1], "max_tokens": 2, "stream": True}
    *chunks, end = await events(client, body)
    assert end == "[DONE]"
    assert all(json.loads(chunk)["choices"][0]["token_ids"] is None for chunk in chunks)


async def test_without_streaming(client: TestClient[Any, Any]) -> None:
    async with client.post("/v1/completions", json={**BODY, "stream": False}) as response:
        answer = await response.json()
    assert len(answer["choices"][0]["token_ids"]) == 4
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model": "other"}, 404, "The model `other` does not exist."),
        ({"max_tokens": 5000}, 400, "maximum context length is 4096 tokens"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"temperature": -1}, 400, "temperature"),
    ],
)
async def test_bad_requests(
    client: TestClient[Any, Any], change: dict[str, Any], status: int, words: str
) -> None:
    async with client.post("/v1/completions", json={**BODY, **change}) as response:
        assert response.status == status
        error = (await response.json())["error"]
    assert words in error["message"]
    assert error["code"] == status


async def test_small_routes(client: TestClient[Any, Any]) -> None:
    async with client.get("/health") as response:
        assert (response.status, await response.text()) == (200, "")
    async with client.get("/v1/models") as response:
        (card,) = (await response.json())["data"]
    assert (card["id"], card["max_model_len"]) == ("served", 4096)
    async with client.get("/version") as response:
        assert (await response.json())["version"].endswith("+emulator")


async def test_metrics_count_what_was_done(client: TestClient[Any, Any]) -> None:
    before = await metrics(client)
    assert before["vllm:num_requests_running"] == 0
    await asyncio.gather(*(events(client, BODY) for _ in range(3)))
    after = await metrics(client)
    assert after["vllm:prompt_tokens_total"] == 9
    assert after["vllm:generation_tokens_total"] == 12
    assert after["vllm:num_preemptions_total"] == 0
    energy = "tuner_emulated:energy_joules_total"
    assert after[energy] > before[energy]
    assert after["tuner_emulated:power_watts"] > 0
    assert after["tuner_emulated:sm_clock_megahertz"] == 1980


async def test_a_client_that_goes_away_aborts_its_request(
    client: TestClient[Any, Any], live: ServedEngine
) -> None:
    body = {**BODY, "max_tokens": 4000}
    timeout = ClientTimeout(total=5)
    async with client.post("/v1/completions", json=body, timeout=timeout) as response:
        await response.content.readline()
        during = await metrics(client)
        assert during["vllm:num_requests_running"] == 1
        assert during["vllm:kv_cache_usage_perc"] > 0
        response.close()
    for _ in range(100):
        if live.engine.running == 0:
            break
        await asyncio.sleep(0.01)
    assert (await metrics(client))["vllm:num_requests_running"] == 0
    assert live.engine.free_blocks == live.engine.launch.kv_blocks


async def test_a_broken_engine_answers_200_and_closes_the_stream(
    client: TestClient[Any, Any], live: ServedEngine
) -> None:
    stream = asyncio.create_task(events(client, {**BODY, "max_tokens": 4000}))
    await asyncio.sleep(0.1)
    live.break_down()
    got = await asyncio.wait_for(stream, 2.0)
    assert 0 < len(got) < 4000
    assert "[DONE]" not in got
    assert all(json.loads(line)["choices"][0]["finish_reason"] is None for line in got)
    assert await events(client, BODY) == []


async def tokens_of(client: TestClient[Any, Any], **change: Any) -> list[int]:
    body = {**BODY, "stream": False, "temperature": 0, "max_tokens": 20, **change}
    async with client.post("/v1/completions", json=body) as response:
        tokens: list[int] = (await response.json())["choices"][0]["token_ids"]
    return tokens


async def test_a_greedy_answer_depends_on_the_prompt_alone(client: TestClient[Any, Any]) -> None:
    first = await tokens_of(client)
    assert await tokens_of(client) == first
    assert await tokens_of(client, prompt=[5, 6, 8]) != first
    assert await tokens_of(client, temperature=1.0) != first
    seeded = await tokens_of(client, temperature=1.0, seed=3)
    assert await tokens_of(client, temperature=1.0, seed=3) == seeded != first


async def test_an_answer_ends_by_itself_unless_told_otherwise(
    client: TestClient[Any, Any],
) -> None:
    body = {**BODY, "stream": False, "ignore_eos": False, "temperature": 0, "max_tokens": 1100}
    async with client.post("/v1/completions", json=body) as response:
        answer = await response.json()
    made = answer["usage"]["completion_tokens"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert 32 <= made <= 1024
    longer = {**body, "min_tokens": made + 5}
    async with client.post("/v1/completions", json=longer) as response:
        assert (await response.json())["usage"]["completion_tokens"] == made + 5


async def test_a_conversation_finds_its_beginning_in_the_cache(
    client: TestClient[Any, Any],
) -> None:
    said = [{"role": "user", "content": "Tell me a story about a long, long road. " * 10}]
    body = {"model": "served", "messages": said, "temperature": 0, "max_tokens": 64}
    body["ignore_eos"] = True
    async with client.post("/v1/chat/completions", json=body) as response:
        answer = await response.json()
    assert answer["object"] == "chat.completion"
    message = answer["choices"][0]["message"]
    assert message["role"] == "assistant"
    said += [message, {"role": "user", "content": "Go on."}]
    async with client.post("/v1/chat/completions", json={**body, "stream": True}) as response:
        lines = (await response.text()).split("\n\n")
    first = json.loads(lines[0].removeprefix("data: "))
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"]["role"] == "assistant"
    after = await metrics(client)
    told = answer["usage"]["prompt_tokens"] + 64
    assert told - 32 < after["vllm:prefix_cache_hits_total"] <= told
    async with client.post("/reset_prefix_cache") as response:
        assert response.status == 200


async def test_server_info_says_what_the_defaults_became(client: TestClient[Any, Any]) -> None:
    async with client.get("/server_info", params={"config_format": "json"}) as response:
        config = (await response.json())["vllm_config"]
    assert config["scheduler_config"]["max_num_seqs"] == 1024
    assert config["model_config"]["max_model_len"] == 4096
    assert config["cache_config"]["gpu_memory_utilization"] == 0.92
