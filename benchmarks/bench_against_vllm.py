"""Our figures beside those of `vllm bench serve`: same real vLLM (TUNER_VLLM), same load.

    TUNER_VLLM=/path/to/vllm python benchmarks/bench_against_vllm.py

They run in turn, three times each, on one server, under two loads: four clients, and a constant
rate that leaves the server time. Ours agrees if its median is no further from theirs than their own
runs are from each other. On a machine whose cores the server and the clients fight for, even those
have nothing to do with each other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.tiny_vllm import Endless, tiny_vllm

from tuner.analysis.load_text import offered_text
from tuner.load.client.drive import drive
from tuner.records import Load, Request, RequestState
from tuner.servers.launch import RunningServer
from tuner.servers.vllm.command import find_vllm

PROMPT_TOKENS, OUTPUT_TOKENS, REQUESTS = 32, 64, 60
LOADS = (Load(concurrency=4), Load(request_rate=4.0))
_LATENCIES = ("mean_ttft_ms", "mean_tpot_ms")


async def ours(server: RunningServer, load: Load, seed: int) -> dict[str, float]:
    """Return throughput over the whole run and mean latencies: what vLLM's bench prints."""
    rng = np.random.default_rng(seed)
    requests = (
        Request(i, float(i), rng.integers(3, 250, PROMPT_TOKENS, dtype=np.int32), OUTPUT_TOKENS)
        for i in range(REQUESTS)
    )
    report = await drive(server, requests, load, Endless())
    records = report.records
    assert {r.state for r in records} == {RequestState.DONE}
    begun_s = min(r.sent_s for r in records)
    ended_s = max(r.token_times_s[-1] for r in records)
    tpot_s = [np.ptp(r.token_times_s) / (r.token_times_s.size - 1) for r in records]
    return {
        "output_throughput": REQUESTS * OUTPUT_TOKENS / (ended_s - begun_s),
        "mean_ttft_ms": 1e3 * float(np.mean([r.token_times_s[0] - r.sent_s for r in records])),
        "mean_tpot_ms": 1e3 * float(np.mean(tpot_s)),
    }


async def theirs(server: RunningServer, load: Load, seed: int, folder: Path) -> dict[str, float]:
    offered = ["--max-concurrency", str(load.concurrency)]
    if load.request_rate is not None:  # gaps of a gamma distribution, so regular as to be constant
        offered = ["--request-rate", str(load.request_rate), "--burstiness", "1e9"]
    words = [
        *("bench", "serve", "--backend", "openai", "--base-url", server.base_url),
        *("--model", str(folder / "tiny"), "--served-model-name", server.served_name),
        *("--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS)),
        *("--random-output-len", str(OUTPUT_TOKENS), "--ignore-eos", "--disable-tqdm"),
        *("--num-prompts", str(REQUESTS), *offered),
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


def print_metric(metric: str, our_runs: list[float], their_runs: list[float]) -> None:
    """Print all runs, and whether ours lies as near to theirs as theirs to each other."""
    our_median, their_median = np.median(our_runs), np.median(their_runs)
    spread = max(their_runs) - min(their_runs)
    within = abs(our_median - their_median) <= spread
    cells = ("/".join(f"{value:.2f}" for value in runs) for runs in (our_runs, their_runs))
    print(
        f"{metric}: ours {next(cells)}, theirs {next(cells)}; medians {our_median:.2f} and "
        f"{their_median:.2f} ({our_median / their_median - 1:+.1%}), theirs differ by "
        f"{spread / their_median:.1%}: {'within' if within else 'NOT within'}",
        flush=True,
    )


async def compare(server: RunningServer, load: Load, runs: int, folder: Path) -> None:
    """Run both in turn under one load, and print what they say."""
    our_runs, their_runs = [], []
    for seed in range(1, 2 * runs, 2):
        their_runs.append(await theirs(server, load, seed, folder))
        our_runs.append(await ours(server, load, seed + 1))
    print(offered_text(load))
    for metric in our_runs[0]:
        print_metric(metric, [r[metric] for r in our_runs], [r[metric] for r in their_runs])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with tiny_vllm(folder) as server:
            await ours(server, LOADS[0], 0)  # warm-up
            for load in LOADS:
                await compare(server, load, runs, folder)


if __name__ == "__main__":
    asyncio.run(main())
