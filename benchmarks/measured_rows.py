"""Measured rows of saturated servers, and what the emulator makes of the same load.

The rows are those of the ML.ENERGY benchmark v3: `requests` sent at once, `max_num_seqs` of them
run, and energy and tokens are counted from the first full batch until none waits any more.
"""

from __future__ import annotations

import csv
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.emulator.engine.step import Batch, StepModel, graph_bound

# tokens of a prompt: mean and spread of its logarithm; not in the data, so chosen with the fit
PROMPTS: Mapping[str, tuple[float, float]] = {
    "lm-arena-chat": (120.0, 1.2),
    "gpqa": (250.0, 0.4),
    "sourcegraph-fim": (1000.0, 0.8),
}
BUDGET_TOKENS = 8192
_BINS = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One measured configuration; the last five are of its window."""

    task: str
    model: str
    gpu: str
    gpus: int
    experts_split: bool
    max_num_seqs: int
    running: float
    requests: int
    output_tokens: float
    max_model_len: int
    token_j: float
    power_w: float
    throughput_tok_s: float
    itl_ms: float
    p99_itl_ms: float

    @property
    def group(self) -> tuple[str, str, str, int]:
        """What rows that differ in the batch alone have in common."""
        return (self.gpu, self.model, self.task, self.gpus)


METRICS = ("token_j", "power_w", "throughput_tok_s", "itl_ms")


def read_rows(path: Path) -> list[Row]:
    """Read the calibration CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_row(record) for record in csv.DictReader(file)]


def _row(record: Mapping[str, str]) -> Row:
    return Row(
        task=record["task"],
        model=record["model"],
        gpu=f"{record['gpu_model']}-SXM",
        gpus=int(record["num_gpus"]),
        experts_split=int(record["expert_parallel"]) > 1,
        max_num_seqs=int(record["max_num_seqs"]),
        running=float(record["avg_batch_size"]),
        requests=int(record["n_requests_in_hist"]),
        output_tokens=float(record["avg_output_len"]),
        max_model_len=int(record["cfg_max_model_len"]),
        token_j=float(record["energy_per_token_J"]),
        power_w=float(record["avg_power_W_total"]),
        throughput_tok_s=float(record["output_throughput_tok_s"]),
        itl_ms=float(record["median_itl_ms"]),
        p99_itl_ms=float(record["p99_itl_ms"]),
    )


class Lengths:
    """Output lengths by model and task, from quantiles."""

    _SHARES = (0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 1.0)

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8", newline="") as file:
            self._tables = {
                (record["task"], record["model"]): [
                    float(record[name]) for name in ("p10", "p50", "p90", "p95", "p99", "max")
                ]
                for record in csv.DictReader(file)
            }

    def sample(self, row: Row, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw one length for each request of a row, with the row's mean."""
        table = self._tables[row.task, row.model]
        points = np.log([max(table[0] / 4, 1.0), *table])
        drawn = np.exp(np.interp(random.random(row.requests), self._SHARES, points))
        scaled = drawn * row.output_tokens / drawn.mean()
        return np.maximum(np.rint(scaled), 2).astype(np.int64)


def prompt_tokens(row: Row, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw the prompt length of each request."""
    mean, spread = PROMPTS[row.task]
    drawn = mean * np.exp(spread * random.standard_normal(row.requests) - spread**2 / 2)
    return np.clip(np.rint(drawn), 8, 16_000).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Part:
    """So many steps alike, inside or outside of the measured window."""

    batch: Batch
    steps: float
    inside: bool


def trace(row: Row, lengths: Lengths) -> list[Part]:
    """Schedule a row's requests; when everything waits from the start, no step time matters."""
    random = np.random.default_rng(row.requests + row.max_num_seqs)
    outputs, prompts = lengths.sample(row, random), prompt_tokens(row, random)
    slots = max(min(row.max_num_seqs, round(row.running)), 1)
    steps = np.array(list(_schedule(outputs, prompts, slots)))
    return [part for inside in (True, False) for part in _summary(steps, inside)]


def _schedule(
    outputs: NDArray[np.int64], prompts: NDArray[np.int64], slots: int
) -> Iterator[tuple[float, ...]]:
    """Yield decodes, their context, prefill tokens, pairs and keys, ends, steps, inside."""
    ends: list[tuple[int, int]] = []
    step = following = context = rest = first_tokens = 0
    count = len(outputs)
    while following < count or ends:
        inside = first_tokens >= slots and following < count
        budget, tokens, pairs, keys, ended = BUDGET_TOKENS - len(ends), 0, 0.0, 0, []
        free = slots - len(ends)
        while following < count and budget > 0 and free > 0:
            done = int(prompts[following]) - rest if rest else 0
            chunk = min(rest or int(prompts[following]), budget)
            tokens, keys = tokens + chunk, keys + done + chunk
            pairs += chunk * (done + chunk / 2)
            rest = (rest or int(prompts[following])) - chunk
            budget, free = budget - chunk, free - 1
            if rest == 0:
                ended.append(following)
                following += 1
        decodes = len(ends)
        steps = 1 if tokens or not ends else max(ends[0][0] - step, 1)
        middle = context + decodes * (steps + 1) / 2
        yield decodes, middle, tokens, pairs, keys, len(ended), steps, inside
        step += steps
        context += decodes * steps
        first_tokens += len(ended)
        for index in ended:
            heapq.heappush(ends, (step + int(outputs[index]) - 1, index))
            context += int(prompts[index])
        while ends and ends[0][0] <= step:
            _, index = heapq.heappop(ends)
            context -= int(prompts[index] + outputs[index]) - 1


def _summary(steps: NDArray[np.float64], inside: bool) -> Iterator[Part]:
    """Take together steps that are alike: a few kinds with prefills, and a few without."""
    chosen = steps[steps[:, 7] == inside]
    for mixed in (False, True):
        kind = chosen[(chosen[:, 2] > 0) == mixed]
        if len(kind) == 0:
            continue
        kind = kind[np.argsort(kind[:, 2] if mixed else np.arange(len(kind)), kind="stable")]
        tokens = np.cumsum(kind[:, 6] * (kind[:, 0] + kind[:, 5]))
        shares = tokens / tokens[-1]
        bins = np.minimum((shares * _BINS).astype(int), _BINS - 1)
        for index in np.unique(bins):
            rows = kind[bins == index]
            weight = rows[:, 6].sum()
            mean = (rows[:, :6] * rows[:, 6:7]).sum(axis=0) / weight
            yield Part(_batch(mean), float(weight), inside)


def _batch(mean: NDArray[np.float64]) -> Batch:
    decodes = round(mean[0])
    return Batch(
        decode_sequences=decodes,
        decode_context_tokens=round(mean[1]),
        prefill_tokens=round(mean[2]),
        prefill_pairs=float(mean[3]),
        prefill_context_tokens=round(mean[4]),
        sampled_sequences=max(round(mean[0] + mean[5]), 1),
        scheduled_sequences=max(round(mean[0] + mean[5]), 1),
    )


def steps_of(row: Row, model: ModelShape, gpu: Gpu) -> StepModel:
    """Return the step model of a row's server: attention and the rest split over all GPUs.

    As in the benchmark's own configurations (ml-energy/benchmark, configs/vllm), scheduling is
    asynchronous. Its requests took the sampling of each model's generation_config.json, top-k or
    top-p, which GPT-OSS has not; earlier versions of the benchmark sent top-p with each request,
    and the rows of GPT-OSS on the H100 take as much longer for every sequence as that does.
    """
    return StepModel(
        model,
        gpu,
        tensor_parallel_size=row.gpus,
        expert_parallel=row.experts_split,
        graph_bound=graph_bound(row.max_num_seqs),
        async_scheduling=True,
        sorts_logits="gpt-oss" not in row.model or row.gpu == "H100-SXM",
    )
