"""Measured sweeps of power limits and locked clocks, and what the emulated GPU makes of them.

Rows come from several engines. What a limit changes is compared within a sweep: the same model,
engine and load. Its throughput is scaled as a whole, so that one number for each sweep stands for
what the engine and the exact weights are.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.catalog.gpu import Gpu, gpu_names
from tuner.catalog.model import ModelShape, load_model, shape_of
from tuner.catalog.model_shape import Weights
from tuner.configuration import Value
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.step import Batch, StepModel

_GPUS = (
    ("RTX PRO 6000", "RTX-PRO-6000"),
    ("RTX 5090", "RTX-5090"),
    ("RTX 3090", "RTX-3090"),
    ("RTX 4000", "RTX-4000-ADA"),
    *((name, name) for name in gpu_names()),
)
_STOCK_MEMORY_MHZ = {"RTX-5090": "14001"}
_KNOWN = {
    "gemma-4-31b": "google/gemma-3-27b-it",
    "gemma3-27b": "google/gemma-3-27b-it",
    "qwen3.6-27b": "Qwen/Qwen3.6-27B",
    "qwen3.8-27b": "Qwen/Qwen3.6-27B",
}
_PREFILL_TOKENS = 2048
_CONTEXT_TOKENS = 600

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One point of a sweep; power is that of all its GPUs."""

    gpu: str
    model: str
    bits: float
    phase: str
    sequences: int
    tokens_each: int  # of a step: one, and the drafts that are verified
    device: Mapping[str, Value]
    sweep: str
    throughput_tok_s: float
    power_w: float


def gpu_of(text: str) -> str | None:
    """Return the emulated GPU that a source names; None if there is none like it."""
    return next((name for part, name in _GPUS if part in text), None)


def read_limit_rows(path: Path) -> tuple[list[LimitRow], list[str]]:
    """Read a CSV; returns also what was left out, and why."""
    rows, left_out = [], []
    with path.open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            row = _row(path.stem, record)
            if isinstance(row, LimitRow):
                rows.append(row)
            else:
                left_out.append(row)
    return rows, left_out


def _row(source: str, record: Mapping[str, str]) -> LimitRow | str:
    gpu = gpu_of(record["gpu"])
    if gpu is None:
        return f"'{record['gpu']}' is not emulated"
    trust = record.get("trust", "")
    if trust.startswith("low") and "shape" not in trust:  # only the shape of a sweep is judged
        return f"its source is in doubt: {trust}"
    if not (record.get("mean_power_w") or record.get("mean_power_W")):
        return "no mean power"
    if record.get("mem_clock_mhz") and record["mem_clock_mhz"] != _STOCK_MEMORY_MHZ.get(gpu):
        return "another memory clock"
    device: dict[str, Value] = {}
    if limit := record.get("power_limit_w") or record.get("power_limit_W"):
        device["power_limit_w"] = float(limit)
    if clock := record.get("sm_clock_set_mhz"):
        device["sm_clock_mhz"] = int(clock)
    power = float(record.get("mean_power_w") or record["mean_power_W"])
    throughput = float(record.get("throughput_tok_s") or record["output_throughput_tok_s"])
    phase = "prefill" if record["phase"] == "prefill" else "decode"
    drafts = int(float(record.get("draft_depth") or 0))
    about = (
        record["model"],
        phase,
        record["concurrency"],
        drafts,
        *record.get("note", "").split()[:1],
    )
    return LimitRow(
        gpu=gpu,
        model=record["model"],
        bits=_bits(record.get("weight_dtype", "int4")),
        phase=phase,
        sequences=int(float(record["concurrency"])),
        tokens_each=1 + drafts,
        device=device,
        sweep=" ".join(map(str, (source, record.get("source_path", ""), *about))),
        throughput_tok_s=throughput,
        power_w=power,
    )


def _bits(dtype: str) -> float:
    if "16" in dtype:
        return 16.0
    if "Q3" in dtype:
        return 3.9
    return 8.0 if "8" in dtype and "Q" not in dtype else 4.8 if "Ollama" in dtype else 4.5


@cache
def shape_for(name: str, bits: float) -> ModelShape:
    """Return a row's model with its weights; one of its size where it is not known."""
    known = _KNOWN.get(name.lower().replace("-awq-int4", ""))
    model = load_model(known) if known else _of_size(name)
    weights = Weights(bits / 8)
    assert model.mlp is not None
    recurrent = model.recurrent and replace(model.recurrent, weights=weights)
    return replace(
        model,
        attention=replace(model.attention, weights=weights),
        mlp=replace(model.mlp, weights=weights),
        recurrent=recurrent,
        head_weights=weights if bits < 8 else Weights(),
    )


def _of_size(name: str) -> ModelShape:
    """Return a dense model with as many billions of parameters as the name says."""
    found = re.search(r"(\d+(?:\.\d+)?)b", name.lower())
    billions = float(found.group(1)) if found else 3.8
    width = 256 * round((billions * 1e9 / (32 * 11)) ** 0.5 / 256)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": max(round(billions * 1e9 / (11 * width**2)), 1),
        "hidden_size": width,
        "num_attention_heads": width // 128,
        "num_key_value_heads": max(width // 512, 1),
        "head_dim": 128,
        "intermediate_size": round(2.8 * width),
        "vocab_size": 64_000,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": False,
    }
    return shape_of(name, config)


def predicted(rows: Sequence[LimitRow], gpu: Gpu) -> Array:
    """Return throughput, tok/s, and power, W, of each row; shape (rows, 2)."""
    return np.array([_point(row, gpu) for row in rows])


def _point(row: LimitRow, gpu: Gpu) -> tuple[float, float]:
    steps = StepModel(shape_for(row.model, row.bits), gpu, async_scheduling=True)
    if row.phase == "prefill":
        tokens = _PREFILL_TOKENS
        batch = Batch(
            prefill_tokens=tokens,
            prefill_pairs=tokens * tokens / 2,
            prefill_context_tokens=tokens,
            sampled_sequences=1,
            scheduled_sequences=1,
        )
    else:
        count = row.sequences * row.tokens_each
        tokens = row.sequences
        context = row.sequences * _CONTEXT_TOKENS
        batch = Batch(count, context, sampled_sequences=count, scheduled_sequences=row.sequences)
    limit_w = row.device.get("power_limit_w")
    device = dict(row.device)
    if limit_w is not None:  # a source may know limits that the vendor's own card refuses
        device["power_limit_w"] = min(max(float(limit_w), gpu.min_limit_w), gpu.max_limit_w)
    cost = PowerModel.under(gpu, device).step(steps.parts(batch))
    return tokens / cost.duration_s, cost.power_w


def shape_errors(rows: Sequence[LimitRow], found: Array) -> Array:
    """Errors of throughput within its sweep, power, and J/token within its sweep; (rows, 3)."""
    measured = np.array([(row.throughput_tok_s, row.power_w) for row in rows])
    logs = np.log(found / measured)
    sweeps: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        sweeps.setdefault(f"{row.gpu} {row.sweep}", []).append(index)
    for indices in sweeps.values():
        logs[indices, 0] -= np.median(logs[indices, 0])
    return np.column_stack((logs, logs[:, 1] - logs[:, 0]))
