"""CPU of a client per streamed chunk, ours against `vllm bench serve`: same server, same run.

`TUNER_VLLM=.../vllm python bench_client_peers.py`. The raw server of bench_client.py writes to 64
streams, one after another. What starting costs is taken out: each client runs twice, with few
requests and with many, and the difference counts.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench_client
import numpy as np

from tuner.load.drive import drive
from tuner.records import Load, Request

sys.path.insert(0, str(Path(__file__).parent.parent))
from studies import TINY_LLAMA

STREAMS, CHUNKS_PER_S, TOKENS = 64, 5000.0, 200
FEW, MANY = STREAMS, 5 * STREAMS
_TOKENIZER = Path(__file__).parent.parent / "load" / "tiny_tokenizer.py"


def ours_cpu_s(port: int, requests: int) -> float:
    """Return the CPU seconds of our client for so many requests."""
    asked = (Request(i, 0.0, np.full(8, i, dtype=np.int32), TOKENS) for i in range(requests))
    url, watch = f"http://127.0.0.1:{port}", bench_client._Watch(math.inf)
    before_s = time.process_time()
    records = asyncio.run(drive(url, "bench", asked, Load(concurrency=STREAMS), watch))
    assert sum(r.token_times_s.size for r in records) == requests * TOKENS
    return time.process_time() - before_s


def vllm_cpu_s(vllm: str, model: Path, port: int, requests: int) -> float:
    """Return the CPU seconds of `vllm bench serve` for so many requests."""
    words = [
        *("bench", "serve", "--backend", "openai", "--base-url", f"http://127.0.0.1:{port}"),
        *("--model", str(model), "--dataset-name", "random", "--random-input-len", "8"),
        *("--random-output-len", str(TOKENS), "--ignore-eos", "--disable-tqdm"),
        *("--num-prompts", str(requests), "--max-concurrency", str(STREAMS)),
        *("--ready-check-timeout-sec", "0"),
    ]
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen([vllm, *words], env=environment, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    assert process.returncode == 0, text[-2000:]
    successful = text.split("Successful requests:")[1].split()[0]
    assert int(successful) == requests, text[-2000:]
    return used.ru_utime + used.ru_stime


def us_per_chunk(cpu_s: Callable[[int], float]) -> float:
    """Return microseconds of CPU per chunk, without the start."""
    few_s = cpu_s(FEW)
    return 1e6 * (cpu_s(MANY) - few_s) / ((MANY - FEW) * TOKENS)


def main() -> None:
    """Print a line per client."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    server = (theirs, STREAMS, CHUNKS_PER_S, False)
    process = context.Process(target=bench_client._server, args=server, daemon=True)
    process.start()
    port = pipe.recv()
    try:
        ours = us_per_chunk(lambda requests: ours_cpu_s(port, requests))
        print(f"tuner             {ours:6.1f} us of CPU per chunk")
        vllm = os.environ.get("TUNER_VLLM")
        if not vllm:
            print("vllm bench serve  not measured: TUNER_VLLM names no vllm")
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(TINY_LLAMA)
            python = Path(vllm).with_name("python")
            subprocess.run([python, _TOKENIZER, folder], check=True)
            theirs_us = us_per_chunk(lambda n: vllm_cpu_s(vllm, Path(folder), port, n))
        print(f"vllm bench serve  {theirs_us:6.1f} us, {theirs_us / ours:.1f} times ours")
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
