"""A forked vLLM is the vLLM that a launch starts: its answers, settings, counters and log."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from helpers.tiny_vllm import needs_vllm, tiny_plan

from tuner.servers.forking.fork_servers import ForkServers
from tuner.servers.launch import LaunchPlan, launched
from tuner.servers.processes import tagged_processes

pytestmark = needs_vllm(1800)
REQUEST = {
    "prompt": [5, 6, 7, 8],
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
    "detokenize": False,
    "return_token_ids": True,
}
# What a process of its own says when it imports, starts or ends: pids, times, addresses, names.
OWN = re.compile(
    r"pid=\d+|\[\d+\]|pid \d+|\d\d-\d\d \d\d:\d\d:\d\d|127\.0\.0\.1:\d+|tuner-[0-9a-f]{16}|port=\d+"
    r"|[\d.]+ (?:s|seconds|GiB|MiB)\b|tcp://\S+|ipc://\S+|'port': \d+|\S*leaked\S*|0x[0-9a-f]+"
)


async def seen(plan: LaunchPlan) -> dict[str, Any]:
    """Launch, and return what can be seen of the server from outside."""
    async with launched(plan) as server, aiohttp.ClientSession() as session:
        url = server.base_url
        body = {**REQUEST, "model": server.served_name}
        async with session.post(f"{url}/v1/completions", json=body) as reply:
            answer = (await reply.json())["choices"][0]
        async with session.get(f"{url}/metrics") as reply:
            counters = (await reply.text()).splitlines()
        async with session.get(f"{url}/openapi.json") as reply:
            routes = sorted((await reply.json())["paths"])
        settings = await server.api.settings(session, url)
        names = sorted(
            p.name for p in tagged_processes(plan.run_tag, launch_tag=server.served_name)
        )
        log = plan.log_path.read_text()  # how it ends depends on which process is the first to
    assert server.exit_code() == 0
    return {
        "answer": (answer["token_ids"], answer["finish_reason"]),
        "counters": sorted({line.split("{")[0].split()[0] for line in counters if line[0] != "#"}),
        "routes": routes,
        "settings": settings,
        "engines": [name for name in names if name.startswith("VLLM::")],
        "log": {OWN.sub("_", line) for line in log.splitlines()},
    }


async def test_a_forked_vllm_is_the_one_that_a_launch_starts(tmp_path: Path, run_tag: str) -> None:
    flags = {"skip_tokenizer_init": True, "max_model_len": 256}
    plan = replace(tiny_plan(tmp_path, run_tag, flags), stop_grace_s=90.0)  # it ends by itself
    ordinary = await seen(plan)
    recipe = plan.server.forks
    assert recipe is not None
    forks = ForkServers(run_tag, tmp_path / "logs" / "forks", recipe)
    try:
        for _ in range(2):  # the first starts the fork servers
            forked = await seen(replace(plan, forks=forks))
            imported = len(tagged_processes(run_tag))
            assert imported >= 2, (tmp_path / "logs" / "forks.log").read_text()
            log, ordinary_log = forked.pop("log"), ordinary["log"]
            assert forked == {name: value for name, value in ordinary.items() if name != "log"}
            assert {
                line for line in log - ordinary_log if "ERROR" in line or "WARN" in line
            } == set()
    finally:
        forks.close()
