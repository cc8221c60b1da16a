from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import example, given
from hypothesis import strategies as st

from tuner.servers.server import ServerSample, ServerUnreachableError
from tuner.servers.vllm.counters import parse_metrics, resolved_settings, scrape

# Lines of vLLM 0.32.0.
PAGE = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 7.0
vllm:num_preemptions_total{engine="0",model_name="tiny"} 0.0
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 1.5e+06
vllm:prompt_tokens_cached_total{engine="0",model_name="tiny"} 9.0
vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.79546982315e+09
vllm:generation_tokens_total{engine="0",model_name="tiny"} 321.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="tiny"} 5.0
"""
SERVER_INFO = {
    "vllm_config": {
        "model_config": {"max_model_len": 2048, "hf_token": "hf_secret"},
        "cache_config": {"gpu_memory_utilization": 0.92, "kv_cache_size_tokens": 524288},
        "scheduler_config": {"max_num_seqs": 128, "max_num_batched_tokens": 2048},
    },
    "vllm_env": {"HF_TOKEN": "hf_secret"},
}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def serving(path: str, response: web.Response | float) -> TestServer:
    async def answer(_: web.Request) -> web.Response:
        if isinstance(response, float):
            await asyncio.sleep(response)
            return web.Response()
        return response

    app = web.Application()
    app.router.add_get(path, answer)
    return TestServer(app)


def test_accepted_drafts_by_position_are_summed_over_engines() -> None:
    name = "vllm:spec_decode_num_accepted_tokens_per_pos"
    lines = [  # of vLLM 0.32.0, which has no order of the positions
        f'{name}_total{{engine="{engine}",model_name="a}}b",position="{position}"}} {value}'
        for engine, position, value in (("0", 1, 3.0), ("0", 0, 5.0), ("1", 0, 2.0), ("1", 3, 9.0))
    ]
    created = f'{name}_created{{engine="0",model_name="a}}b",position="0"}} 1.79e+09'
    page = "\n".join([*lines, created, ""]).encode()
    assert parse_metrics(page).accepted_at == (7.0, 3.0)  # of position 2 nothing is known
    assert parse_metrics(PAGE).accepted_at == ()


def test_a_real_page() -> None:
    assert parse_metrics(PAGE) == ServerSample(
        running=3.0, waiting=2.0, prompt_tokens=1.5e6, generation_tokens=321.0, preemptions=0.0
    )


def test_what_is_not_reported_is_unknown() -> None:
    assert parse_metrics(b"") == ServerSample()
    assert parse_metrics(b"vllm:num_requests_running NaN\n").running is None
    assert parse_metrics(b"vllm:num_requests_running oops\n").running is None


def test_emulated_energy() -> None:
    page = (
        b"tuner_emulated:energy_joules_total 12.5\ntuner_emulated:power_watts 250\n"
        b"tuner_emulated:sm_clock_megahertz 1395\n"
    )
    sample = parse_metrics(page)
    assert (sample.emulated_energy_j, sample.emulated_power_w) == (12.5, 250.0)
    assert sample.emulated_sm_clock_mhz == 1395.0


@given(
    values=st.lists(st.integers(0, 10**12), min_size=1, max_size=8),
    name=st.text(st.characters(codec="utf-8", exclude_characters='\n\r"\\')),
)
@example(values=[5, 6], name="a} 7")
def test_engines_are_summed_whatever_the_model_is_called(values: list[int], name: str) -> None:
    lines = [
        f'vllm:generation_tokens_total{{engine="{i}",model_name="{name}"}} {value}'
        for i, value in enumerate(values)
    ]
    assert parse_metrics("\n".join(lines).encode()).generation_tokens == sum(values)


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda t: PAGE + t.encode()))
def test_any_page_is_read(page: bytes) -> None:
    parse_metrics(page)


async def test_scrape(session) -> None:
    async with serving("/metrics", web.Response(body=PAGE)) as server:
        assert (await scrape(session, str(server.make_url("")).rstrip("/"))).running == 3.0


async def test_a_server_that_does_not_answer(session) -> None:
    with pytest.raises(
        ServerUnreachableError, match=r"no answer from http://127\.0\.0\.1:9/metrics"
    ):
        await scrape(session, "http://127.0.0.1:9")
    for response in (web.Response(status=500), 5.0):
        async with serving("/metrics", response) as server:
            with pytest.raises(ServerUnreachableError, match="/metrics: "):
                await scrape(session, str(server.make_url("")).rstrip("/"), deadline_s=0.3)


async def test_resolved_settings_hold_no_secret(session) -> None:
    async with serving("/server_info", web.json_response(SERVER_INFO)) as server:
        found = await resolved_settings(session, str(server.make_url("")).rstrip("/"))
    assert found == {
        "max_num_seqs": 128,
        "max_num_batched_tokens": 2048,
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.92,
    }
    assert "hf_secret" not in repr(found)


async def test_settings_are_unknown_without_development_mode(session) -> None:
    async with serving("/other", web.Response()) as server:
        assert await resolved_settings(session, str(server.make_url("")).rstrip("/")) is None


@pytest.mark.parametrize("text", ["[]", "{", '{"vllm_config": "VllmConfig(...)"}', '{"a": 1}'])
async def test_another_form_of_server_info_is_no_settings(session, text: str) -> None:
    async with serving("/server_info", web.Response(text=text)) as server:
        with pytest.raises(ServerUnreachableError, match="no vLLM configuration"):
            await resolved_settings(session, str(server.make_url("")).rstrip("/"))


def test_an_exemplar_after_a_value_is_no_part_of_it() -> None:
    page = b'vllm:prompt_tokens_total{engine="0",a="x} \\"y"} 34 # {trace_id="b"} 1 1700000000.1\n'
    assert parse_metrics(page).prompt_tokens == 34.0
