"""How well the emulator predicts a real GPU's trials, before and after `tuner calibrate`.

    python benchmarks/real_gpu/read_emulator.py [--gpu H200-SXM] STORE.db|EXPORT.csv ...

Every second trial of each study calibrates, and the rest judges; then the halves change places. The
paths of model and space that a store's studies name have to exist here, as README.md says. An
export is one of `results/h200/`, whose loads are known by the file's name.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import tuner
from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.evaluation.factory import measurement_plan
from tuner.load.workload import load_workload
from tuner.metrics import METRICS
from tuner.store import Store
from tuner.study.calibrate_gpu import MeasuredTrial, fitted, measured_trials, predicted

MODEL = Path(__file__).parent / "llama-3.1-8b"
# Of each export; the SLO decides when a window begins.
LOADS: Mapping[str, Mapping[str, Any]] = {
    "night": {
        "request_rate": 10.0,
        "window_s": 10.0,
        "slo": ["p99_tpot_ms<=30", "p99_ttft_ms<=300"],
    },
    "night-precision": {
        "request_rate": 10.0,
        "window_s": 12.0,
        "slo": ["p99_tpot_ms<=25", "p99_ttft_ms<=300"],
    },
    "slow-precision": {
        "request_rate": 2.0,
        "window_s": 20.0,
        "slo": ["p99_tpot_ms<=15", "p99_ttft_ms<=300"],
    },
    "busy-precision": {
        "concurrency": 256,
        "window_s": 30.0,
        "slo": ["p99_tpot_ms<=60", "p99_ttft_ms<=1000"],
    },
}
SHOWN = (
    "energy_per_output_token_j",
    "mean_power_w",
    "output_throughput_tok_s",
    "p50_itl_ms",
    "p50_tpot_ms",
    "p99_tpot_ms",
    "p50_ttft_ms",
)


@dataclass
class Errors:
    """Predicted / measured - 1 of each metric, before and after calibration."""

    before: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    after: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def main() -> None:
    """Print medians and 90th percentiles of the absolute errors of the halves not fitted to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="H200-SXM")
    parser.add_argument("stores", nargs="+", type=Path)
    options = parser.parse_args()
    gpu, rows = load_gpu(options.gpu), list(_rows(options.stores, load_gpu(options.gpu)))
    errors = Errors()
    for fitting, judging in ((0, 1), (1, 0)):
        half = [row for index, row in enumerate(rows) if index % 2 == fitting]
        calibrated = fitted(gpu, half).gpu
        for row in (row for index, row in enumerate(rows) if index % 2 == judging):
            _compare(row, predicted(row, gpu), errors.before)
            _compare(row, predicted(row, calibrated), errors.after)
    _show(errors, len(rows))


def _rows(paths: Sequence[Path], gpu: Gpu) -> Iterable[MeasuredTrial]:
    for path in paths:
        for row in _exported(path) if path.suffix == ".csv" else _stored(path):
            try:
                predicted(row, gpu)
            except UsageError as error:
                print(f"left out: {error}")
            else:
                yield row


def _stored(path: Path) -> Iterable[MeasuredTrial]:
    with Store.open(path, create=False) as store:
        for summary in store.studies():
            yield from measured_trials(store, summary.identity.name, named=False)


def _exported(path: Path) -> Iterable[MeasuredTrial]:
    """Yield the trials of an export that were measured to the end."""
    with path.open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            load = LOADS.get(path.stem)
            if load is None or record["state"] != "measured" or record["failure_reason"]:
                continue
            # of what was confirmed, the search's own window
            found = {name: record.get(f"search.{name}") or record.get(name) for name in METRICS}
            metrics = {name: float(value) for name, value in found.items() if value}
            spec = tuner.study_spec(options={"model": str(MODEL), "trials": 1, **load})
            plan = measurement_plan(spec, load_workload(spec.workload), Configuration())
            flags = {
                name.removeprefix("knob."): yaml.safe_load(value)
                for name, value in record.items()
                if name.startswith("knob.") and value
            }
            number, shape = int(record["number"]), load_model(str(MODEL))
            yield MeasuredTrial(
                record["study"], number, plan, shape, Configuration(flags=flags), metrics
            )


def _compare(
    row: MeasuredTrial, metrics: Mapping[str, float], found: dict[str, list[float]]
) -> None:
    for name in SHOWN:
        if name in metrics and row.metrics.get(name):
            found[name].append(metrics[name] / row.metrics[name] - 1.0)


def _show(errors: Errors, count: int) -> None:
    print(f"{count} trials, each judged by what the other half taught\n")
    print("| metric | before: median / 90 % | after: median / 90 % | bias after |")
    print("|---|---|---|---|")
    for name in SHOWN:
        before, after = (np.abs(found[name]) for found in (errors.before, errors.after))
        if len(before):
            bias = float(np.median(errors.after[name]))
            print(f"| {name} | {_spread(before)} | {_spread(after)} | {bias:+.1%} |")


def _spread(sizes: np.ndarray) -> str:
    return f"{np.median(sizes):.1%} / {np.percentile(sizes, 90):.1%}"


if __name__ == "__main__":
    main()
