"""Rows that the tuner itself measured on a real GPU, and the same measurements emulated.

A row is one window under one load; `variant` says how vLLM was launched. Both ways are those of
`tuner measure`.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tuner
from tuner.catalog.gpu import Gpu, gpu_yaml
from tuner.configuration import Value
from tuner.errors import PreflightError

CONFIG = Path(__file__).parent / "real_gpu" / "llama-3.1-8b" / "config.json"
METRICS = {
    "token_j": "energy_per_output_token_j",
    "power_w": "mean_power_w",
    "throughput_tok_s": "output_throughput_tok_s",
    "itl_ms": "p50_itl_ms",
    "tpot_ms": "p50_tpot_ms",
    "ttft_ms": "p50_ttft_ms",
    "p99_itl_ms": "p99_itl_ms",
    "p99_tpot_ms": "p99_tpot_ms",
    "p99_ttft_ms": "p99_ttft_ms",
}
_LONG_WINDOW_S = 60.0
VARIANTS: Mapping[str, Mapping[str, Value]] = {
    "normal": {},
    "bf16": {},
    "fp8": {"quantization": "fp8"},
    "sync": {"async_scheduling": False},
    "eager": {"enforce_eager": True},
    "kvfp8": {"kv_cache_dtype": "fp8"},
    "tp2": {"tensor_parallel_size": 2},
    "dp2": {"data_parallel_size": 2},
}


@dataclass(frozen=True, slots=True)
class ServedRow:
    """One measured window."""

    card: str
    variant: str
    load: str
    workload: str
    window_s: float
    measured: Mapping[str, float]

    @property
    def label(self) -> str:
        return f"{self.variant} {self.load} {self.workload}"


def read_served_rows(path: Path) -> list[ServedRow]:
    """Read the CSV; idle rows are left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_row(record) for record in csv.DictReader(file) if record["load"] != "idle"]


def _row(record: Mapping[str, str]) -> ServedRow:
    measured = {name: float(record[column]) for name, column in METRICS.items() if record[column]}
    return ServedRow(
        f"{record['machine']}/{record['gpu']}",
        record["variant"],
        record["load"],
        record["workload"],
        float(record["window_s"]),
        measured,
    )


def emulated(row: ServedRow, gpu: str, seed: int = 0) -> tuner.MeasuredOnce:
    """Measure the row's load on an emulated GPU, over a window as long: the same stretch of it.

    A window in which no answer fits, which the tuner does not take any more, lasts a minute.
    """
    try:
        return _emulated(row, gpu, row.window_s, seed)
    except PreflightError:
        return _emulated(row, gpu, _LONG_WINDOW_S, seed)


def _emulated(row: ServedRow, gpu: str, window_s: float, seed: int) -> tuner.MeasuredOnce:
    with tempfile.TemporaryDirectory() as name:
        return _measured(row, gpu, window_s, seed, Path(name))


def _measured(
    row: ServedRow, gpu: str, window_s: float, seed: int, folder: Path
) -> tuner.MeasuredOnce:
    kind, _, amount = row.load.partition("=")
    options = {
        "model": str(CONFIG.parent),
        "emulate": gpu,
        "workload": _workload(row.workload, folder),
        kind.replace("-", "_"): float(amount) if "rate" in kind else int(amount),
        "min_window_s": window_s,
        "max_window_s": window_s,
        "trials": 1,
        "traffic": "drawn",  # what the rows were measured on
        "seed": seed,
    }
    return tuner.measure(VARIANTS[row.variant], tuner.study_spec(options=options))


def figures(row: ServedRow, gpu: Gpu) -> Mapping[str, float]:
    """Return the metrics of a row's load on a GPU with any constants."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "gpu.yaml"
        path.write_text(gpu_yaml(gpu.model_copy(update={"name": "candidate"})))
        return _measured(row, str(path), row.window_s, 0, folder).measurement.metrics


def _workload(name: str, folder: Path) -> str:
    """Return a shipped workload, or `prefill-PROMPT-OUTPUT` as a file."""
    if not name.startswith("prefill-"):
        return name
    return fixed_lengths(*map(int, name.removeprefix("prefill-").split("-")), folder)


def fixed_lengths(prompt: int, output: int, folder: Path) -> str:
    """Write a workload of prompts and answers that are all as long, tokens; return its path."""
    path = folder / "prefill.yaml"
    lengths = {
        kind: {"distribution": "uniform", "min": tokens, "max": tokens}
        for kind, tokens in (("prompt_tokens", prompt), ("output_tokens", output))
    }
    said = {
        "description": "fixed lengths",
        "sources": ["measured rows"],
        "load": {"concurrency": 8},
    }
    path.write_text(json.dumps({**said, **lengths}), encoding="utf-8")
    return str(path)
