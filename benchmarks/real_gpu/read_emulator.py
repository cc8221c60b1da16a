"""How well the emulator predicts a real GPU's trials, before and after `tuner calibrate`.

    python benchmarks/real_gpu/read_emulator.py [--gpu H200-SXM] STORE.db ...

Every second trial of each study calibrates, and the rest judges; then the halves change places. The
paths of model and space that the studies name have to exist here, as README.md says.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.errors import UsageError
from tuner.store import Store
from tuner.study.calibrate_gpu import MeasuredTrial, fitted, measured_trials, predicted

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


def _rows(stores: Sequence[Path], gpu: Gpu) -> Iterable[MeasuredTrial]:
    for path in stores:
        with Store.open(path, create=False) as store:
            for summary in store.studies():
                for row in measured_trials(store, summary.identity.name, named=False):
                    try:
                        predicted(row, gpu)
                    except UsageError as error:
                        print(f"left out: {error}")
                    else:
                        yield row


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
