"""What the emulator's engine costs: 1,000 requests of 1,024/256 tokens, and how cost grows.

Run it alone: `python benchmarks/bench_emulator.py`. Times are of one core's processor time.
"""

from __future__ import annotations

import math
import time

import numpy as np

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.engine.engine import Engine
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.virtual import engine_for

MODEL, GPU = "meta-llama/Llama-3.1-8B-Instruct", "H100-SXM"
PROMPT_TOKENS = 1_024
REPEATS = 3


def started(max_num_seqs: int, prefix_caching: bool) -> Engine:
    flags = {"max_num_seqs": max_num_seqs, "enable_prefix_caching": prefix_caching}
    return engine_for(load_model(MODEL), load_gpu(GPU), Configuration(flags=flags), seed=0)


def cost_s(requests: int, output_tokens: int, max_num_seqs: int, prefix_caching: bool) -> float:
    """Return the least processor time of some repeats."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 30_000, PROMPT_TOKENS, dtype=np.int32) for _ in range(requests)]
    costs = []
    for _ in range(REPEATS):
        engine = started(max_num_seqs, prefix_caching)
        began_s = time.process_time()
        for number, prompt in enumerate(prompts):
            engine.submit(Sequence(number, PROMPT_TOKENS, output_tokens, prompt))
        while engine.running or engine.waiting:
            engine.advance(math.inf)
        costs.append(time.process_time() - began_s)
        assert engine.counters.generation_tokens == requests * output_tokens
    return min(costs)


def main() -> None:
    print("1,000 requests of 1,024/256 tokens (target: at most 1.5 s)")
    for prefix_caching in (True, False):
        for max_num_seqs in (64, 256):
            cost = cost_s(1_000, 256, max_num_seqs, prefix_caching)
            cache = "with" if prefix_caching else "without"
            print(f"  max_num_seqs={max_num_seqs}, {cache} a prefix cache: {cost:.3f} s")
    print("cost of 4 times the requests / 4 (1 is linear)")
    few, many = (cost_s(n, 256, 256, True) for n in (500, 2_000))
    print(f"  {many / few / 4:.2f}")
    print("cost of 4 times the output tokens / 4 (1 is linear, less is cheaper)")
    short, long = (cost_s(500, n, 256, True) for n in (256, 1_024))
    print(f"  {long / short / 4:.2f}")


if __name__ == "__main__":
    main()
