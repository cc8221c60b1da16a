"""What a server says: its stream, its pages, its log. It may be any server, and a broken one."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from helpers.hostile import cases, changed, damaged, one_sentence_at_most, values
from hypothesis import given
from hypothesis import strategies as st

from tuner.configuration import Configuration
from tuner.evaluation.attached import AttachedEvaluator
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.traffic import Traffic
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Load
from tuner.servers.launch import served_names
from tuner.servers.openai.stream import CompletionStream
from tuner.servers.server import ServerUnreachableError
from tuner.servers.vllm.api import VllmApi
from tuner.servers.vllm.counters import (
    parse_metrics,
    resolved_settings,
    scrape,
)
from tuner.servers.vllm.log.diagnosis import VllmLog

CHUNK = {
    "id": "cmpl-1",
    "choices": [{"index": 0, "text": "x", "token_ids": [5], "finish_reason": None}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
STREAM = f"data: {json.dumps(CHUNK)}\n\n" * 2 + "data: [DONE]\n\n"
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:prompt_tokens_total{engine="0",model_name="a b} c"} 1.5e+06
vllm:generation_tokens_total{engine="0"} NaN
"""
INFO = {
    "vllm_config": {
        "scheduler_config": {"max_num_seqs": 256, "max_num_batched_tokens": 2048},
        "model_config": {"max_model_len": 4096},
        "cache_config": {"gpu_memory_utilization": 0.9, "kv_cache_size_tokens": 9},
    }
}
MODELS = {"data": [{"id": "m", "object": "model"}]}
LOG = """INFO 11-20 10:00:00 [core.py:58] Initializing a V1 LLM engine
(EngineCore_0 pid=12) ERROR 11-20 10:00:05 [core.py:708] EngineCore failed to start.
(EngineCore_0 pid=12) ERROR 11-20 10:00:05 [core.py:708] Traceback (most recent call last):
ValueError: Free memory on device cuda:0 (1.5/79.1 GiB) on startup is less than desired GPU \
memory utilization (0.9, 71.2 GiB). Decrease GPU memory utilization.
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig
  Value error, max_num_batched_tokens (16) must be greater [type=value_error]
RuntimeError: CUDA error: an illegal memory access was encountered
NVRM: Xid (PCI:0000:17:00): 79, pid=1, GPU has fallen off the bus.
vllm serve: error: unrecognized arguments: --nope
"""
DEEP = b"[" * 100_000


@cases(2.0)
@given(content=damaged([STREAM]), cuts=st.lists(st.integers(0, 500), max_size=4))
def test_a_stream(content: bytes, cuts: list[int]) -> None:
    with one_sentence_at_most():
        feed(content, cuts)


@cases()
@given(content=changed(CHUNK, ["choices", "text", "usage", "token_ids", "error", "finish_reason"]))
def test_a_stream_of_any_values(content: bytes) -> None:
    with one_sentence_at_most():
        feed(b"data: " + content + b"\n\ndata: [DONE]\n\n", [])


def feed(content: bytes, cuts: list[int]) -> None:
    for known in (3, None):
        stream = CompletionStream(known, 2)
        edges = [0, *sorted(cuts), len(content)]
        for number, (start, end) in enumerate(itertools.pairwise(edges)):
            stream.feed(content[start:end], float(number))
        stream.close(99.0)
        assert stream.problem is not None or stream.received == 2
        assert stream.token_times_s().size == stream.received


@pytest.mark.fuzz
@pytest.mark.parametrize("line", [DEEP, b"data: " + DEEP, b'data: {"a":' * 9999, b"x" * 5_000_000])
def test_a_stream_made_to_harm(line: bytes) -> None:
    with one_sentence_at_most():
        feed(line + b"\n\n", [])
        feed(line, [])


@cases(2.0)
@given(content=damaged([METRICS, METRICS * 2]))
def test_a_page_of_metrics(content: bytes) -> None:
    with one_sentence_at_most():
        sample = parse_metrics(content)
        assert sample.running is None or sample.running == sample.running


@pytest.mark.fuzz
@pytest.mark.parametrize("line", [b"vllm:num_requests_running{" + b"} " * 50_000, b"{} " * 100_000])
def test_metrics_made_to_harm(line: bytes) -> None:
    with one_sentence_at_most():
        parse_metrics(line)
        parse_metrics(b"vllm:num_requests_running" + line + b"\n" + line)


@cases(2.0)
@given(content=damaged([LOG, LOG * 2, *LOG.splitlines()]), code=st.none() | st.integers(-70, 300))
def test_a_log(content: bytes, code: int | None) -> None:
    text = content.decode(errors="replace")
    with one_sentence_at_most():
        for failure in (
            VllmLog().diagnose_launch(text, code, timed_out=False),
            VllmLog().diagnose_launch(text, code, timed_out=True),
            VllmLog().diagnose_death(text, code),
        ):
            assert failure.reason and len(failure.reason) < 1000


@pytest.mark.fuzz
@pytest.mark.parametrize(
    "line",
    [
        "(a pid=1) " * 100_000,
        "x" * 1_000_000,
        "a.b" * 300_000 + "Error",
        "Free memory on device " * 40_000,
        "Free memory on device x (1.0/2.0 GiB) " * 10_000,
        "ERROR 1 1 [" * 60_000,
        "Error" * 200_000,
        "\n" * 100_000,
    ],
)
def test_a_log_made_to_harm(line: str) -> None:
    with one_sentence_at_most():
        VllmLog().diagnose_launch(line, 1, timed_out=False)
        VllmLog().diagnose_death(line + "\nValueError: x", None)


class Hostile:
    """An HTTP server whose every answer is `body`, with these headers in front."""

    body = b""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.head + self.body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def hostile_server() -> AsyncIterator[tuple[Hostile, str]]:
    hostile = Hostile()
    server = await asyncio.start_server(hostile.answer, "127.0.0.1", 0)
    try:
        yield hostile, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def ask_everything(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        await served_names(VllmApi(), session, url)
        for ask in (resolved_settings, scrape):
            try:
                await ask(session, url)
            except ServerUnreachableError as error:
                assert len(str(error)) < 1000
    task = MeasurementPlan(
        "m", Traffic(load_workload("smoke")), Load(concurrency=1), (), WindowPlan(), Configuration()
    )
    with one_sentence_at_most():
        await AttachedEvaluator(url, task, no_meter).prepare()


def no_meter(_names: object = ()) -> object:
    from tuner.devices.emulated.meters import EmulatorServerMeter

    return EmulatorServerMeter("none")


def offer(bodies: list[bytes], head: bytes | None = None) -> None:
    async def run() -> None:
        async with hostile_server() as (server, url):
            for body in bodies:
                server.body = body
                if head is not None:
                    server.head = head
                await ask_everything(url)

    asyncio.run(asyncio.wait_for(run(), 60.0))


PAGES = st.one_of(
    changed(INFO, list(INFO["vllm_config"])),
    changed(MODELS, ["data", "id"]),
    damaged([json.dumps(INFO), json.dumps(MODELS), METRICS]),
    values(["data", "id", "vllm_config", "version"]).map(lambda value: json.dumps(value).encode()),
)
HEADS = [
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello\r\n",
    "HTTP/1.1 500 \r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
]


@pytest.mark.fuzz
@cases(0.2)
@given(bodies=st.lists(PAGES, min_size=4, max_size=4))
def test_pages_of_a_server(bodies: list[bytes]) -> None:
    offer(bodies)


@pytest.mark.fuzz
@cases(0.2)
@given(head=damaged(HEADS))
def test_no_http_at_all(head: bytes) -> None:
    offer([b"{}"], head)


@pytest.mark.fuzz
def test_pages_made_to_harm() -> None:
    info = b'{"vllm_config": {"scheduler_config": {"max_num_seqs": %s}}}'
    numbers = [b"Infinity", b"NaN", b"1e999", b"9" * 5000, b"true"]
    offer([DEEP, b'{"a":' * 100_000, b"[]", b"null", *(info % number for number in numbers)])
