"""Rows of servers under a closed load that others measured, and the same load emulated.

Columns: `gpu`, `gpu_count`, `model`, `engine`, `concurrency`, `input_tokens`, `output_tokens`,
`throughput_tok_s` and `mean_power_w`, of all GPUs; `tp`, `ep` and `weight_dtype` where they are
known. Every prompt and answer is taken to have the mean length.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from limit_rows import gpu_of
from served_rows import fixed_lengths

import tuner
from tuner.catalog.model import load_model, model_names
from tuner.configuration import Value

COLUMNS = frozenset(("gpu", "model", "concurrency", "throughput_tok_s", "mean_power_w"))
_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class ServingRow:
    """One measured window; power is that of all GPUs."""

    gpu: str
    model: str
    flags: Mapping[str, Value]
    concurrency: int
    input_tokens: int
    output_tokens: int
    throughput_tok_s: float
    power_w: float


def read_serving_rows(path: Path) -> Iterator[ServingRow | str]:
    """Yield each row, or why it is left out."""
    with path.open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            yield _row(record)


def _row(record: Mapping[str, str]) -> ServingRow | str:
    model = next((n for n in model_names() if n.split("/")[-1] == record["model"]), None)
    gpu = gpu_of(record["gpu"])
    if gpu is None:
        return f"'{record['gpu']}' is not emulated"
    if "vllm" not in record.get("engine", "vLLM").lower():
        return f"served by {record['engine']}"
    if model is None:
        return f"the model '{record['model']}' is not in the catalog"
    if record.get("disaggregated", "0") == "1" or record.get("dp_attention", "0") == "1":
        return "prefills or attention on GPUs of their own"
    if record.get("draft_method", "none") not in ("", "none"):
        return "drafts of unknown acceptance"
    if not (record.get("input_tokens") and record.get("output_tokens")):
        return "lengths of prompts and answers are not stated"
    gpus = int(record.get("tp") or record.get("gpu_count") or 1)
    flags: dict[str, Value] = {"tensor_parallel_size": gpus}
    if int(record.get("ep") or 1) > 1:
        flags["enable_expert_parallel"] = True
    is_16_bit = load_model(model).loaded_bytes / load_model(model).parameters > 1.6
    if record.get("weight_dtype", "") == "fp8" and is_16_bit:
        flags["quantization"] = "fp8"
    return ServingRow(
        gpu,
        model,
        flags,
        round(float(record["concurrency"])),
        round(float(record["input_tokens"])),
        round(float(record["output_tokens"])),
        float(record["throughput_tok_s"]),
        float(record["mean_power_w"]),
    )


def emulated(row: ServingRow) -> tuner.MeasuredOnce:
    """Measure the row's load on the emulated GPU. Raises `UsageError`."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "model": row.model,
            "emulate": row.gpu,
            "workload": fixed_lengths(row.input_tokens, row.output_tokens, Path(folder)),
            "concurrency": row.concurrency,
            "min_window_s": _WINDOW_S,
            "max_window_s": _WINDOW_S,
            "trials": 1,
        }
        return tuner.measure(row.flags, tuner.study_spec(options=options))
