"""What a client costs and how fast it can send, beside the other clients that can be had here.

    TUNER_VLLM=.../vllm TUNER_VLLM_RS=.../vllm-rs TUNER_GUIDELLM=... TUNER_AIPERF=... \\
        python bench_client_peers.py [--only cpu] [--rounds 3]

One that is not named is left out, and said to be. The raw server of bench_client.py answers all of
them in turn.

CPU per streamed chunk: it writes to 64 streams, one after another. What starting costs is taken
out: each client runs once to warm the caches, then with few requests and with many, and the
difference counts. Rounds go through all clients in turn, so that what else runs on the machine
troubles each alike; the median of the rounds is shown, and the range.

Highest rate: requests at constant gaps, twice as many per second each time, until more than 1 % of
them reach the server over 5 ms late. Late is what the server sees: the n-th request against the
schedule, which is laid so that the earliest of them is on time. So the server's own lag is in it,
for all alike. A busy machine makes all of them late at any rate.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import bench_client
import numpy as np

from tuner.records import FloatArray, Load, Request
from tuner.servers.server import Endpoint
from tuner.servers.vllm.api import VllmApi

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.studies import TINY_LLAMA

STREAMS, CHUNKS_PER_S, TOKENS = 64, 5000.0, 200
FEW, MANY = STREAMS, 20 * STREAMS  # starting takes seconds, and not always as many
LATE_MS, LATE_PERCENTILE = 5.0, 99.0
FIRST_RATE, HIGHEST_RATE, RATE_SECONDS = 12.5, 3200.0, 6.0
SHORT_TOKENS, MOST_STREAMS, TOKENS_PER_S = 20, 1024, 50.0
_PROMPT_TOKENS = 8
_TOKENIZER = Path(__file__).parent.parent / "tests" / "helpers" / "tiny_tokenizer.py"


@dataclass(frozen=True, slots=True)
class Offer:
    """Requests of `tokens` output tokens each, by so many clients or at a constant rate per s."""

    requests: int
    tokens: int
    load: Load


Client = Callable[[int, Offer], float]  # a port and an offer -> CPU seconds of the client


def ours(port: int, offer: Offer) -> float:
    """Return the CPU seconds of our client."""
    asked = (
        Request(i, float(i), np.full(_PROMPT_TOKENS, i, dtype=np.int32), offer.tokens)
        for i in range(offer.requests)
    )
    url, watch = f"http://127.0.0.1:{port}", bench_client._Watch(math.inf)
    before_s = time.process_time()
    records = bench_client.driven(Endpoint(VllmApi(), url, "bench"), asked, offer.load, watch)
    assert sum(r.token_times_s.size for r in records) == offer.requests * offer.tokens
    return time.process_time() - before_s


def vllm_bench(vllm: str, model: Path) -> Client:
    """Return `bench serve` as a client; vLLM's Python and its Rust have the same options."""

    def run(port: int, offer: Offer) -> float:
        words = [
            *("bench", "serve", "--backend", "openai", "--base-url", f"http://127.0.0.1:{port}"),
            *("--model", str(model), "--dataset-name", "random"),
            *("--random-input-len", str(_PROMPT_TOKENS), "--random-output-len", str(offer.tokens)),
            *("--ignore-eos", "--disable-tqdm", "--num-prompts", str(offer.requests)),
            *("--ready-check-timeout-sec", "0"),
        ]
        if offer.load.concurrency is not None:
            words += ["--max-concurrency", str(offer.load.concurrency)]
        else:  # gaps of a gamma distribution, so regular that they are constant
            words += ["--request-rate", str(offer.load.request_rate), "--burstiness", "1e9"]
        cpu_s, text = _cpu_s([vllm, *words])
        assert int(text.split("Successful requests:")[1].split()[0]) == offer.requests, text[-2000:]
        return cpu_s

    return run


def guidellm(command: str, model: Path) -> Client:
    """Return `guidellm run` as a client."""

    def run(port: int, offer: Offer) -> float:
        load = offer.load
        profile = f"kind=constant,rate={load.request_rate}"
        if load.concurrency is not None:
            profile = f"kind=concurrent,streams={load.concurrency}"
        backend = (
            f"kind=openai_http,target=http://127.0.0.1:{port},model=bench,"
            "request_format=/v1/completions,validate_backend=false"
        )
        data = f"kind=synthetic_text,prompt_tokens={_PROMPT_TOKENS},output_tokens={offer.tokens}"
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "found.json"
            words = [
                *("run", "--backend", backend, "--profile", profile, "--data", data),
                *("--constraint", f"kind=max_requests,count={offer.requests}"),
                *("--tokenizer", f"kind=huggingface_auto,model={model}"),
                *("--output", f"kind=json,path={found}", "--disable-console"),
            ]
            cpu_s, text = _cpu_s([command, *words])
            assert found.exists(), text[-2000:]
        return cpu_s

    return run


def aiperf(command: str, model: Path) -> Client:
    """Return `aiperf profile` as a client; its tokenizer is not found where the hub is offline."""

    def run(port: int, offer: Offer) -> float:
        load = ("--request-rate", str(offer.load.request_rate), "--request-rate-mode", "constant")
        if offer.load.concurrency is not None:
            load = ("--concurrency", str(offer.load.concurrency))
        with tempfile.TemporaryDirectory() as folder:
            words = [
                *("env", "-u", "HF_HUB_OFFLINE", command, "profile", "--model-names", "bench"),
                *("--tokenizer", str(model), "--url", f"http://127.0.0.1:{port}", "--streaming"),
                *("--endpoint-type", "completions", "--request-count", str(offer.requests), *load),
                *("--synthetic-input-tokens-mean", str(_PROMPT_TOKENS)),
                *("--output-tokens-mean", str(offer.tokens), "--use-legacy-max-tokens"),
                *("--use-server-token-count", "--export-level", "summary", "--no-auto-plot"),
                *("--ui", "none", "--output-artifact-dir", folder),
            ]
            cpu_s, text = _cpu_s(words)
            found = json.loads((Path(folder) / "profile_export_aiperf.json").read_text())
        assert found["request_count"]["avg"] == offer.requests, text[-2000:]
        return cpu_s

    return run


def _cpu_s(command: list[str]) -> tuple[float, str]:
    """Run to the end; return the CPU seconds of it and its children, and what it printed."""
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    assert process.returncode == 0, text[-2000:]
    return used.ru_utime + used.ru_stime, text


@contextmanager
def serving(streams: int, chunks_per_s: float, *, burst: bool) -> Iterator[tuple[Connection, int]]:
    """Run the raw server; give the pipe to it, and its port."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    server = (theirs, streams, chunks_per_s, burst)
    process = context.Process(target=bench_client._server, args=server, daemon=True)
    process.start()
    try:
        yield pipe, pipe.recv()
    finally:
        process.terminate()
        process.join()


def us_per_chunk(client: Client, port: int) -> float:
    """Return microseconds of CPU per chunk, without the start."""
    few_s, many_s = (client(port, Offer(n, TOKENS, Load(concurrency=STREAMS))) for n in (FEW, MANY))
    return 1e6 * (many_s - few_s) / ((MANY - FEW) * TOKENS)


def late_ms(asked_s: FloatArray, rate: float) -> FloatArray:
    """Return how late each request was, the earliest counted as on time."""
    behind_s = np.sort(asked_s) - np.arange(asked_s.size) / rate
    return 1e3 * (behind_s - behind_s.min())


def highest_rate(client: Client, pipe: Connection, port: int) -> list[tuple[float, float, float]]:
    """Return p50 and p99 lateness in ms at each rate tried; the last rate was too much."""
    found, rate = [], FIRST_RATE
    while rate <= HIGHEST_RATE and (not found or found[-1][2] <= LATE_MS):
        requests = math.ceil(rate * RATE_SECONDS)
        pipe.send("asked")  # forget the requests so far
        pipe.recv()
        client(port, Offer(requests, SHORT_TOKENS, Load(request_rate=rate)))
        pipe.send("asked")
        asked_s = np.array(pipe.recv())
        assert asked_s.size == requests, f"{asked_s.size} of {requests} requests were seen"
        p50, p99 = np.percentile(late_ms(asked_s, rate), [50.0, LATE_PERCENTILE])
        found.append((rate, float(p50), float(p99)))
        rate *= 2.0
    return found


def print_cpu(clients: dict[str, Client], rounds: int) -> None:
    """Print a line of CPU per client, the first one's as the unit."""
    found: dict[str, list[float]] = {name: [] for name in clients}
    with serving(STREAMS, CHUNKS_PER_S, burst=False) as (_, port):
        for client in clients.values():
            client(port, Offer(FEW, TOKENS, Load(concurrency=STREAMS)))
        for _ in range(rounds):
            for name, client in clients.items():
                found[name].append(us_per_chunk(client, port))
    unit = next(iter(found.values()))
    for name, costs in found.items():
        ratio = np.median(np.array(costs) / np.array(unit))
        print(
            f"{name:22}{np.median(costs):7.1f} us of CPU per chunk ({min(costs):.1f} to "
            f"{max(costs):.1f}), {ratio:.2f} times ours",
            flush=True,
        )


def print_rates(clients: dict[str, Client]) -> None:
    """Print the highest rate of each client, and how late it was at each rate."""
    with serving(MOST_STREAMS, MOST_STREAMS * TOKENS_PER_S, burst=True) as (pipe, port):
        for name, client in clients.items():
            found = highest_rate(client, pipe, port)
            sustained = [rate for rate, _, p99 in found if p99 <= LATE_MS]
            shown = f"{max(sustained):g} requests/s" if sustained else "no rate"
            tried = ", ".join(f"{rate:g}/s {p50:.1f}/{p99:.1f}" for rate, p50, p99 in found)
            print(f"{name:18}{shown} on time; late by p50/p99 ms: {tried}", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=["cpu", "rates"])
    parser.add_argument("--rounds", type=int, default=3, help="of the first table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clients = {"tuner": ours, **_peers(Path(folder))}
        if given.only != "rates":
            print_cpu(clients, given.rounds)
        if given.only != "cpu":
            print_rates(clients)


def _peers(model: Path) -> dict[str, Client]:
    """Return the other clients that the environment names; say which it does not."""
    makers: dict[str, tuple[str, Callable[[str, Path], Client]]] = {
        "vllm bench serve": ("TUNER_VLLM", vllm_bench),
        "vllm bench (Rust)": ("TUNER_VLLM_RS", vllm_bench),
        "GuideLLM": ("TUNER_GUIDELLM", guidellm),
        "AIPerf": ("TUNER_AIPERF", aiperf),
    }
    vllm = os.environ.get("TUNER_VLLM")
    if vllm is None:
        print("TUNER_VLLM names no vllm, whose Python makes the tokenizer: no other client runs")
        return {}
    (model / "config.json").write_text(TINY_LLAMA)
    subprocess.run([Path(vllm).with_name("python"), _TOKENIZER, model], check=True)
    found = {}
    for name, (variable, make) in makers.items():
        if command := os.environ.get(variable):
            found[name] = make(command, model)
        else:
            print(f"without {name}: {variable} does not name it")
    return found


if __name__ == "__main__":
    main()
