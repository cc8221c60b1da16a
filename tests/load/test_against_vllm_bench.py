"""On a real vLLM: what we measure agrees with `vllm bench serve`, and texts are answered."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from studies import TINY_LLAMA

from tuner.configuration import Configuration
from tuner.load.drive import drive
from tuner.load.text_request import Message, TextRequest, stand_in_ids
from tuner.records import Load, Request, RequestRecord, RequestState
from tuner.serving.launch import LaunchPlan, RunningServer, launched
from tuner.serving.processes import stop_tagged
from tuner.serving.vllm import find_vllm

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("TUNER_VLLM" not in os.environ, reason="TUNER_VLLM names no vllm"),
    pytest.mark.timeout(900),
]

PROMPT_TOKENS, OUTPUT_TOKENS, REQUESTS, CONCURRENCY = 32, 64, 60, 4


class Endless:
    """The load ends when its requests are used up."""

    window_start_s = window_end_s = None

    def started(self, now_s: float) -> None: ...

    def sent(self, now_s: float) -> None: ...

    def finished(self, now_s: float) -> None: ...


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "config.json").write_text(TINY_LLAMA)
    command = find_vllm(os.environ["TUNER_VLLM"])
    python = Path(command[0]).with_name("python")
    script = Path(__file__).with_name("tiny_tokenizer.py")
    await asyncio.to_thread(subprocess.run, [python, script, model], check=True)
    tag = f"test-{os.getpid()}-{tmp_path.name}"
    plan = LaunchPlan(
        command=command,
        model=str(model),
        configuration=Configuration(flags={}, environment={"VLLM_CPU_KVCACHE_SPACE": 1}),
        run_tag=tag,
        log_path=tmp_path / "vllm.log",
        startup_deadline_s=600.0,
        fixed_flags={
            "load_format": "dummy",
            "enforce_eager": True,
            "dtype": "float32",
            "enable_prefix_caching": False,
        },
        environment={"HF_HUB_OFFLINE": True},
    )
    try:
        async with launched(plan) as running:
            yield running
    finally:
        stop_tagged(tag, grace_s=1.0)


async def ours(server: RunningServer, seed: int) -> dict[str, float]:
    """Return throughput over the whole run and mean latencies: what vLLM's bench prints."""
    rng = np.random.default_rng(seed)
    requests = (
        Request(i, 0.0, rng.integers(3, 250, PROMPT_TOKENS, dtype=np.int32), OUTPUT_TOKENS)
        for i in range(REQUESTS)
    )
    load = Load(concurrency=CONCURRENCY)
    records = await drive(server.base_url, server.served_name, requests, load, Endless())
    assert {r.state for r in records} == {RequestState.DONE}
    begun_s = min(r.sent_s for r in records)
    ended_s = max(r.token_times_s[-1] for r in records)
    tpot_s = [np.ptp(r.token_times_s) / (r.token_times_s.size - 1) for r in records]
    return {
        "output_throughput": REQUESTS * OUTPUT_TOKENS / (ended_s - begun_s),
        "mean_ttft_ms": 1e3 * float(np.mean([r.token_times_s[0] - r.sent_s for r in records])),
        "mean_tpot_ms": 1e3 * float(np.mean(tpot_s)),
    }


async def theirs(server: RunningServer, seed: int, folder: Path) -> dict[str, float]:
    words = [
        *("bench", "serve", "--backend", "openai", "--base-url", server.base_url),
        *("--model", str(folder / "tiny"), "--served-model-name", server.served_name),
        *("--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS)),
        *("--random-output-len", str(OUTPUT_TOKENS), "--ignore-eos", "--disable-tqdm"),
        *("--num-prompts", str(REQUESTS), "--max-concurrency", str(CONCURRENCY)),
        *("--seed", str(seed), "--temperature", "0", "--save-result"),
        *("--result-dir", str(folder), "--result-filename", f"{seed}.json"),
    ]
    command = [*find_vllm(os.environ["TUNER_VLLM"]), *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    run = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads((folder / f"{seed}.json").read_text())
    assert found["completed"] == REQUESTS
    return {name: float(found[name]) for name in ("output_throughput", *_LATENCIES)}


_LATENCIES = ("mean_ttft_ms", "mean_tpot_ms")


async def test_our_figures_are_those_of_vllms_bench(server: RunningServer, tmp_path: Path) -> None:
    """Ours lies within what two runs of theirs differ, taken around it: drift is in both."""
    await ours(server, 1)  # warm-up
    first = await theirs(server, 2, tmp_path)
    found = await ours(server, 3)
    second = await theirs(server, 4, tmp_path)
    print("\n", first, found, second, sep="\n")
    for name, value in found.items():
        low, high = sorted((first[name], second[name]))
        spread = max(high - low, 0.03 * high)  # two runs may agree by chance
        assert low - spread <= value <= high + spread, name


async def test_texts_and_chats_are_answered_and_counted(server: RunningServer) -> None:
    chat = (Message("system", "Be brief."), Message("user", "Grüße 🙂"))
    asked: list[TextRequest] = [
        TextRequest(0, 0.0, stand_in_ids(5), 7, "Once upon a time"),
        TextRequest(1, 0.0, stand_in_ids(5), 9, chat),
    ]
    load = Load(concurrency=2)
    records: tuple[RequestRecord, ...] = await drive(
        server.base_url, server.served_name, iter(asked), load, Endless()
    )
    assert [(r.state, r.error) for r in records] == [(RequestState.DONE, None)] * 2
    assert [r.token_times_s.size for r in records] == [7, 9]
    rendered = "".join(f"{m.role}: {m.content}" for m in chat)
    markers = 2 * len(chat) + 1  # one token each
    assert [r.prompt_tokens for r in records] == [
        len("Once upon a time"),
        len(rendered.encode()) + markers,
    ]
