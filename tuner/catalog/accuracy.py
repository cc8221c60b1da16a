"""How far the emulator's figures may be off: held-out errors of their kind, from `accuracy.yaml`.

A kind is a GPU, with or without rows that were measured on it, dense layers or experts, and 16 bits
or fewer. An error is a share of the emulated figure: nine in ten measured figures of rows that were
left out of the fit lay within it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tuner.catalog.gpu import Gpu
from tuner.catalog.model_shape import ModelShape
from tuner.catalog.yaml_files import read_yaml
from tuner.metrics import METRICS, TEXT

_OTHER = "other"
_TAILS = ("p90", "p95", "p99")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    same_chip: Mapping[str, str]  # a GPU without rows of a kind takes those of another
    errors: Mapping[str, Mapping[str, Mapping[str, float]]]  # by GPU, kind of model, figure


def stated_errors(gpu: Gpu, model: ModelShape) -> dict[str, float]:
    """Return the error of each metric's emulated value, as a share of it."""
    found = {**_errors_of(gpu.name, kind_of(model)), **gpu.errors}
    return {
        name: found[figure]
        for name in METRICS
        if (figure := figure_of(name)) is not None and figure in found
    }


def kind_of(model: ModelShape) -> str:
    """Return `dense` or `experts`, with the bits of most of its weights."""
    bits = 16 if model.loaded_bytes / model.parameters > 1.6 else 8
    return f"{'dense' if model.moe is None else 'experts'}-{bits}"


def figure_of(metric: str) -> str | None:
    """Return which figure of the table stands for a metric; None if none does."""
    if TEXT.lacks(metric):
        return None
    if metric.startswith("energy_per"):
        return "energy"
    if metric == "mean_power_w":
        return "power"
    if metric in ("output_throughput_tok_s", "request_throughput_req_s", "goodput_req_s"):
        return "throughput"
    statistic, _, latency = metric.partition("_")
    if latency == "ttft_ms":
        return "ttft tail" if statistic in _TAILS else "ttft"
    if latency in ("itl_ms", "tpot_ms", "e2el_ms"):
        return "itl tail" if statistic in _TAILS else "itl"
    return None


def _errors_of(gpu: str, kind: str) -> Mapping[str, float]:
    table = _table()
    name = gpu.partition(":")[0]
    while name in table.errors or name in table.same_chip:
        if kind in table.errors.get(name, {}):
            return {**table.errors[_OTHER][kind], **table.errors[name][kind]}
        name = table.same_chip.get(name, _OTHER)
        if name == _OTHER:
            break
    return table.errors[_OTHER][kind]


@cache
def _table() -> _Table:
    return read_yaml(Path(__file__).parent / "accuracy.yaml", _Table)
