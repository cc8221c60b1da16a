"""The emulator's figures beside measured ones: errors, and how often the stated one holds.

    python benchmarks/bench_accuracy.py ROWS.csv... [--lengths LENGTHS.csv] [--each] [--save FILE]

A file's columns say what it is: rows of the ML.ENERGY benchmark v3 (they need LENGTHS, quantiles of
output lengths) run on the engine, request by request, as vLLM 0.11; rows of the tuner itself on an
H200 (`variant`, `load`) run as `tuner measure --emulate`; sweeps of power limits and clocks run as
the engine's steps, throughput compared within each sweep; other people's servers under a closed
load (`serving_rows.py`) run as `tuner measure --emulate`. What is none of these is refused, and
what cannot be judged of a file is said. `--each` prints every row. Exit code 2: nothing was judged.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from engine_rows import FIGURES, run_row
from limit_rows import predicted, read_limit_rows, shape_errors
from measured_rows import Lengths, read_rows
from served_rows import METRICS, emulated, read_served_rows
from serving_rows import COLUMNS, ServingRow, read_serving_rows
from serving_rows import emulated as serving_emulated

from tuner.catalog.accuracy import kind_of, stated_errors
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.errors import UsageError

_NAMES = {  # of the columns, and the metric whose stated error is theirs
    "token_j": "energy_per_output_token_j",
    "power_w": "mean_power_w",
    "throughput_tok_s": "output_throughput_tok_s",
    "itl_ms": "p50_itl_ms",
    "p99_itl_ms": "p99_itl_ms",
    "tpot_ms": "p50_tpot_ms",
    "p99_tpot_ms": "p99_tpot_ms",
    "ttft_ms": "p50_ttft_ms",
    "p99_ttft_ms": "p99_ttft_ms",
}
SERVED_GPU = "H200-SXM"


@dataclass(frozen=True, slots=True)
class Point:
    """One measured row: emulated / measured of each figure, and the error that is stated."""

    kind: str
    label: str
    ratios: Mapping[str, float]
    stated: Mapping[str, float]

    def holds(self, figure: str) -> bool | None:
        """Say whether the measured value lies within the stated error of the emulated one."""
        error = self.stated.get(_NAMES[figure])
        return None if error is None else abs(1.0 / self.ratios[figure] - 1.0) <= error


def main() -> None:
    """Read the files, run the emulator, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--lengths", type=Path)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--save", type=Path, help="write every ratio as JSON")
    options = parser.parse_args()
    points: list[Point] = []
    for path in options.rows:
        try:
            points += points_of(path, options.lengths)
        except UsageError as error:
            print(f"refused: {error}")
    for kind in sorted({point.kind for point in points}):
        print_kind(kind, [point for point in points if point.kind == kind], options.each)
    if options.save:
        kept = [{"kind": p.kind, "label": p.label, "ratios": dict(p.ratios)} for p in points]
        options.save.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    if not points:
        raise SystemExit(2)


def points_of(path: Path, lengths: Path | None) -> Iterator[Point]:
    """Yield the rows of one file; raises `UsageError` for what cannot be judged."""
    with path.open(encoding="utf-8", newline="") as file:
        columns = set(next(csv.reader(file), []))
    if {"p50", "p99", "max"} <= columns:
        raise UsageError(f"'{path}' holds output lengths; give it as --lengths (LENGTHS=)")
    if columns & {"energy_per_generation_J", "time_per_generation_s"}:
        raise UsageError(f"'{path}' is of images or videos, of which there are no tokens to judge")
    if {"kind", "value", "unit"} <= columns:
        raise UsageError(f"'{path}' holds single figures, not rows of a load with its power")
    if "avg_power_W_total" in columns:
        if lengths is None:
            raise UsageError(f"'{path}' needs its output lengths; give --lengths (LENGTHS=)")
        return saturated(path, lengths)
    if {"variant", "load"} <= columns:
        return served(path)
    if columns & {"power_limit_w", "power_limit_W", "sm_clock_set_mhz"}:
        return sweeps(path)
    if columns >= COLUMNS:
        return serving(path)
    raise UsageError(f"'{path}' has columns of no known kind; bench_accuracy.py --help lists them")


def saturated(path: Path, lengths_path: Path) -> Iterator[Point]:
    """Run rows of saturated servers on the engine."""
    lengths, refused = Lengths(lengths_path), 0
    for row in read_rows(path):
        model, gpu = load_model(row.model), load_gpu(row.gpu, "vllm-0.11")
        found = run_row(row, lengths, model, gpu)
        if found is None:
            refused += 1
            continue
        measured = [getattr(row, name) for name in FIGURES]
        yield Point(
            f"{row.gpu} vllm-0.11 {kind_of(model)}",
            f"{row.model} on {row.gpus}, {row.task}, {row.max_num_seqs} at a time",
            dict(zip(FIGURES, found / measured, strict=True)),
            stated_errors(gpu, model),
        )
    if refused:
        print(f"{path.name}: {refused} rows are refused by the emulated vLLM")


def served(path: Path) -> Iterator[Point]:
    """Measure the tuner's own rows again, emulated."""
    for row in read_served_rows(path):
        found = emulated(row, SERVED_GPU)
        values = found.measurement.metrics
        yield Point(
            f"{SERVED_GPU} vllm-0.22 {'dense-8' if row.variant == 'fp8' else 'dense-16'}",
            f"{row.card} {row.label}",
            {name: values[METRICS[name]] / value for name, value in row.measured.items()},
            found.emulated_errors,
        )


def sweeps(path: Path) -> Iterator[Point]:
    """Work out the points of sweeps of limits and clocks."""
    rows, left_out = read_limit_rows(path)
    tell_left_out(path, left_out, len(rows))
    for name in sorted({row.gpu for row in rows}):
        chosen = [row for row in rows if row.gpu == name]
        errors = shape_errors(chosen, predicted(chosen, load_gpu(name)))
        for row, (throughput, power, token_j) in zip(chosen, np.exp(errors), strict=True):
            limits = ", ".join(f"{knob}={value:g}" for knob, value in row.device.items())
            ratios = {"token_j": token_j, "power_w": power, "throughput_tok_s": throughput}
            yield Point(f"{name} limits", f"{row.model} {row.phase} {limits}", ratios, {})


def serving(path: Path) -> Iterator[Point]:
    """Measure other people's servers again, emulated."""
    found = list(read_serving_rows(path))
    rows = [row for row in found if isinstance(row, ServingRow)]
    tell_left_out(path, [row for row in found if isinstance(row, str)], len(rows))
    for row in rows:
        once = serving_emulated(row)
        values = once.measurement.metrics
        measured = {
            "token_j": row.power_w / row.throughput_tok_s,
            "power_w": row.power_w,
            "throughput_tok_s": row.throughput_tok_s,
        }
        yield Point(
            f"{row.gpu} served {kind_of(load_model(row.model))}",
            f"{row.model} {row.concurrency} at a time",
            {name: values[METRICS[name]] / value for name, value in measured.items()},
            once.emulated_errors,
        )


def tell_left_out(path: Path, reasons: Sequence[str], judged: int) -> None:
    """Say which rows are not judged, and why; raises `UsageError` if none is."""
    said = "; ".join(f"{count}: {reason}" for reason, count in Counter(reasons).most_common())
    if not judged:
        raise UsageError(f"'{path}': none of its rows can be judged ({said or 'it has none'})")
    if said:
        print(f"{path.name}: rows left out: {said}")


def print_kind(kind: str, points: list[Point], each: bool) -> None:
    """Print median and 90th percentile of each figure's error, %, and how often ± holds."""
    print(f"\n{kind}: {len(points)} rows; error in %, median / 90th percentile; ± holds in")
    for figure in _NAMES:
        ratios = np.array([p.ratios[figure] for p in points if figure in p.ratios])
        if not ratios.size:
            continue
        errors = 100 * np.abs(ratios - 1.0)
        held = [p.holds(figure) for p in points if figure in p.ratios]
        known = [h for h in held if h is not None]
        share = f"{100 * sum(known) / len(known):5.0f} %" if known else ""
        print(
            f"  {figure:18s} {np.median(errors):6.1f} / {np.percentile(errors, 90):6.1f}"
            f"   (bias {100 * (np.median(ratios) - 1.0):+6.1f})  {share}"
        )
    if each:
        for point in points:
            cells = " ".join(f"{n} {100 * (r - 1.0):+.1f}" for n, r in point.ratios.items())
            print(f"    {point.label}: {cells}")


if __name__ == "__main__":
    main()
