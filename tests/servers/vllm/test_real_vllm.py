"""The same promises with a real vLLM: its processes, its words, its defaults."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping

import aiohttp
import pytest
from helpers.tiny_vllm import needs_vllm, tiny_plan

from tuner.configuration import Value
from tuner.records import FailureKind
from tuner.servers.launch import LaunchFailedError, launched
from tuner.servers.processes import stop_tagged, tagged_processes, wait_until
from tuner.servers.vllm.command import find_vllm, known_flags, vllm_version
from tuner.servers.vllm.counters import resolved_settings, scrape

pytestmark = needs_vllm(900)
FLAGS: Mapping[str, Value] = {"skip_tokenizer_init": True}


@pytest.fixture
def command() -> tuple[str, ...]:
    return find_vllm(os.environ["TUNER_VLLM"])


async def test_defaults_tokens_and_a_killed_api_server(run_tag, tmp_path) -> None:
    async with (
        launched(tiny_plan(tmp_path, run_tag, FLAGS)) as server,
        aiohttp.ClientSession() as session,
    ):
        settings = await resolved_settings(session, server.base_url)
        assert settings is not None
        assert (settings["max_num_seqs"], settings["max_num_batched_tokens"]) == (128, 2048)
        assert settings["max_model_len"] == 2048
        asked = {"model": server.served_name, "prompt": [5, 6, 7], "max_tokens": 4}
        asked |= {"ignore_eos": True, "detokenize": False}
        async with session.post(f"{server.base_url}/v1/completions", json=asked) as response:
            assert response.status == 200
            await response.read()
        sample = await scrape(session, server.base_url)
        assert (sample.prompt_tokens, sample.generation_tokens) == (3.0, 4.0)
        assert (sample.running, sample.waiting, sample.preemptions) == (0.0, 0.0, 0.0)
        assert sample.emulated_energy_j is None

        os.kill(server.pid, signal.SIGKILL)
        assert wait_until(lambda: server.exit_code() == -signal.SIGKILL, 10.0)
        names = {p.name for p in tagged_processes(run_tag)}
        assert {"VLLM::EngineCor", "VLLM::Worker"} <= names
        assert stop_tagged(run_tag, grace_s=1.0) >= 2
        assert tagged_processes(run_tag) == ()


@pytest.mark.parametrize(
    ("flags", "cache_gib", "says"),
    [
        ({"max_num_batched_tokens": 16, "max_num_seqs": 64}, 1, r"\(16\) must be greater"),
        ({}, 900, r"does not fit into memory: .* requested memory for kv \(900\.0 GiB\)"),
    ],
    ids=["refused settings", "impossible memory"],
)
async def test_a_refusal_is_the_configurations_fault(
    run_tag, tmp_path, flags, cache_gib, says
) -> None:
    asked = tiny_plan(tmp_path, run_tag, {**FLAGS, **flags}, cache_gib=cache_gib)
    with pytest.raises(LaunchFailedError) as caught:
        async with launched(asked):
            pytest.fail("it cannot start")
    assert caught.value.failure.kind is FailureKind.CONFIGURATION
    assert re.search(says, caught.value.failure.reason)


def test_version_and_flags(command) -> None:
    assert re.match(r"\d+\.\d+", vllm_version(command))
    flags = known_flags(command)
    assert {"max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization"} <= flags
    assert {"enforce_eager", "load_format", "skip_tokenizer_init", "dtype"} <= flags
    assert len(flags) > 100
