"""What a client costs and how fast it can send: ours, `vllm bench serve` and GuideLLM, one server.

    TUNER_VLLM=.../vllm TUNER_GUIDELLM=.../guidellm python bench_client_peers.py

One that is not named is left out. The raw server of bench_client.py answers all of them in turn.

CPU per streamed chunk: it writes to 64 streams, one after another. What starting costs is taken
out: each client runs once to warm the caches, then with few requests and with many, and the
difference counts.

Highest rate: requests at constant gaps, twice as many per second each time, until more than 1 % of
them reach the server over 5 ms late. Late is what the server sees: the n-th request against the
schedule, which is laid so that the earliest of them is on time. So the server's own lag is in it,
for all three alike. A busy machine makes all of them late at any rate.
"""

from __future__ import annotations

import argparse
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
    """Return `vllm bench serve` as a client."""

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
    _, few_s, many_s = (
        client(port, Offer(n, TOKENS, Load(concurrency=STREAMS))) for n in (FEW, FEW, MANY)
    )
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


def print_cpu(clients: dict[str, Client]) -> None:
    """Print a line of CPU per client."""
    least = None
    with serving(STREAMS, CHUNKS_PER_S, burst=False) as (_, port):
        for name, client in clients.items():
            found = us_per_chunk(client, port)
            least = least or found
            print(
                f"{name:18}{found:7.1f} us of CPU per chunk, {found / least:.1f} times ours",
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
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as folder:
        clients: dict[str, Client] = {"tuner": ours}
        if vllm := os.environ.get("TUNER_VLLM"):
            model = Path(folder)
            (model / "config.json").write_text(TINY_LLAMA)
            subprocess.run([Path(vllm).with_name("python"), _TOKENIZER, model], check=True)
            clients["vllm bench serve"] = vllm_bench(vllm, model)
            if command := os.environ.get("TUNER_GUIDELLM"):
                clients["GuideLLM"] = guidellm(command, model)
        if len(clients) < 3:
            print("TUNER_VLLM and TUNER_GUIDELLM name the others; GuideLLM needs both")
        if only != "rates":
            print_cpu(clients)
        if only != "cpu":
            print_rates(clients)


if __name__ == "__main__":
    main()
