"""Fit the constants of emulated GPUs to measured rows, and print how large the errors are.

    python benchmarks/fit_emulator.py ROWS.csv LENGTHS.csv [--limits LIMITS.csv] [--fit]

ROWS are those of the ML.ENERGY benchmark v3, LENGTHS quantiles of its output lengths, LIMITS a
power-limit sweep on an RTX PRO 6000. Printed are the errors of the shipped constants as the engine
itself gives them. `--fit` (needs SciPy) fits them anew, prints them, and the errors of each model
with constants that were fitted without it. Where matrix products were measured on the GPU, the fit
is held to them, and finds how voltage grows too. Nothing is written: copy them into the GPU's file.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from engine_rows import run_row
from fast_rows import Array, Table
from measured_rows import METRICS, Lengths, Row, read_rows, trace
from product_rows import PRODUCTS, product_errors

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import load_model
from tuner.catalog.model_shape import ModelShape, Weights
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.step import Batch, StepModel

BOUNDS: Mapping[str, tuple[float, float]] = {
    "matrix_efficiency": (0.3, 1.0),
    "memory_efficiency": (0.5, 0.95),
    "expert_efficiency": (0.3, 0.95),
    "attention_efficiency": (0.1, 0.95),
    "roofline_overlap": (0.0, 1.0),
    "expert_matrix_share": (0.1, 1.0),
    "expert_skew": (0.0, 1.0),
    "expert_tile_share": (0.3, 1.0),
    "layer_us": (0.0, 80.0),
    "expert_layer_us": (0.0, 300.0),
    "quantize_layer_us": (0.0, 250.0),
    "logit_bytes": (5.0, 600.0),
    "prefill_layer_us": (0.0, 800.0),
    "prefill_latent_us": (0.0, 3000.0),
    "prefill_expert_us": (0.0, 1500.0),
    "prefill_state_us": (0.0, 3000.0),
    "all_reduce_us": (1.0, 40.0),
    "all_reduce_growth": (0.0, 2.0),
    "link_efficiency": (0.05, 1.0),
    "host_step_us": (0.0, 8000.0),
    "host_sequence_us": (1.0, 150.0),
    "host_overlap": (0.0, 1.0),
    "active_w": (0.0, 300.0),
    "stall_w": (0.0, 800.0),
    "compute_w": (50.0, 2500.0),
    "prefill_activity": (0.0, 1.0),
    "memory_pj_per_byte": (10.0, 120.0),
}
_VOLTAGE: Mapping[str, tuple[float, float]] = {"knee_mhz": (400.0, 1500.0)}
_FITTED = (2, 1, 3)  # J/token is power / throughput
_WEIGHTS = np.array([1.0, 1.4, 0.9])
_PRODUCT_WEIGHT = 2.0
_SCALE = 0.1  # an error well beyond it, as of a host that was busy otherwise, pulls no more


def main() -> None:
    """Read the files, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rows", type=Path)
    parser.add_argument("lengths", type=Path)
    parser.add_argument("--limits", type=Path, help="a power-limit sweep")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    rows, lengths = read_rows(options.rows), Lengths(options.lengths)
    if options.limits:
        print_limits(options.limits)
    if options.fit:
        held_out = []
        for name in sorted({row.gpu for row in rows}):
            chosen = [row for row in rows if row.gpu == name]
            held_out.append((chosen, print_fit(chosen, lengths, load_gpu(name))))
        everything = [row for chosen, _ in held_out for row in chosen]
        print_errors(
            "all, each model left out", everything, np.concatenate([p for _, p in held_out])
        )
    print_engine(rows, lengths)


def print_engine(rows: Sequence[Row], lengths: Lengths) -> None:
    """Run every row on the engine and print the errors."""
    models = {row.model: load_model(row.model) for row in rows}
    gpus = {row.gpu: load_gpu(row.gpu) for row in rows}
    found = [(row, run_row(row, lengths, models[row.model], gpus[row.gpu])) for row in rows]
    kept = [(row, metrics) for row, metrics in found if metrics is not None]
    print(f"\nthe engine: {len(kept)} of {len(rows)} rows, {len(rows) - len(kept)} refused")
    ran, predicted = [row for row, _ in kept], np.array([metrics for _, metrics in kept])
    for name in gpus:
        chosen = np.array([row.gpu == name for row in ran])
        print_errors(name, [r for r in ran if r.gpu == name], predicted[chosen])
        print_products(gpus[name])
    print_errors("all", ran, predicted)
    ranks = spearman_by_group(ran, predicted[:, 0])
    print(f"Spearman of J/token: median {np.median(ranks):.3f} of {len(ranks)} groups")


def print_fit(rows: Sequence[Row], lengths: Lengths, gpu: Gpu) -> Array:
    """Fit one GPU, print its constants, and the errors with each model left out.

    Returns what is predicted of each row without its model.
    """
    table = Table(rows, [trace(row, lengths) for row in rows], gpu)
    everything = np.ones(len(rows), bool)
    found = fit(table, gpu, everything, _position(gpu), 40)
    print(f"\n{gpu.name}")
    for name in _bounds(gpu):
        print(f"{name}: {getattr(_at(gpu, found), name):.3g}")
    print_products(_at(gpu, found))
    print_errors("fitted", rows, table.predict(_at(gpu, found)))
    held_out = np.empty((len(rows), len(METRICS)))
    for model in sorted({row.model for row in rows}):
        out = np.array([row.model == model for row in rows])
        without = fit(table, gpu, ~out, np.clip(found, 1e-3, 1 - 1e-3), 6)
        held_out[out] = table.predict(_at(gpu, without))[out]
        print_errors(f"without {model}", [r for r in rows if r.model == model], held_out[out])
    print_errors("each model left out", rows, held_out)
    return held_out


def fit(table: Table, gpu: Gpu, chosen: Array, start: Array, most: int) -> Array:
    """Return the constants, as shares of their bounds, that fit the chosen rows best."""
    from scipy.optimize import least_squares

    target = np.log(_measured(table.rows))

    def residuals(position: Array) -> Array:
        errors = np.log(table.predict(_at(gpu, position))) - target
        of_rows = (errors[:, _FITTED] * _WEIGHTS)[chosen].ravel()
        return np.concatenate([of_rows, _PRODUCT_WEIGHT * product_errors(_at(gpu, position))])

    result = least_squares(
        residuals,
        start,
        bounds=(0, 1),
        loss="cauchy",
        f_scale=_SCALE,
        max_nfev=most,
        diff_step=3e-3,
    )
    return np.asarray(result.x)


def _bounds(gpu: Gpu) -> Mapping[str, tuple[float, float]]:
    """Return what is fitted; how voltage grows needs products at several clocks."""
    return {**BOUNDS, **_VOLTAGE} if gpu.name in PRODUCTS else BOUNDS


def _at(gpu: Gpu, position: Array) -> Gpu:
    found = {
        name: low + share * (high - low)
        for (name, (low, high)), share in zip(
            _bounds(gpu).items(), map(float, position), strict=True
        )
    }
    return gpu.model_copy(update=found)


def _position(gpu: Gpu) -> Array:
    shares = [(getattr(gpu, n) - low) / (high - low) for n, (low, high) in _bounds(gpu).items()]
    return np.clip(np.array(shares), 0.02, 0.98)


def _measured(rows: Sequence[Row]) -> Array:
    return np.array([[getattr(row, name) for name in METRICS] for row in rows])


def print_errors(label: str, rows: Sequence[Row], predicted: Array) -> None:
    """Print median and 90th percentile of the absolute error of each metric, %."""
    errors = 100 * np.abs(predicted / _measured(rows) - 1)
    cells = "  ".join(
        f"{name} {np.median(column):5.1f} /{np.percentile(column, 90):5.1f}"
        for name, column in zip(METRICS, errors.T, strict=True)
    )
    print(f"{label[:44]:44s} {len(rows):4d}  {cells}")


def print_products(gpu: Gpu) -> None:
    """Print the errors of speed and power of each measured matrix product, %."""
    errors = 100 * np.expm1(product_errors(gpu).reshape(-1, 2))
    for product, (speed, power) in zip(PRODUCTS.get(gpu.name, ()), errors, strict=True):
        print(f"  a product of {product.rows:5d} rows: speed {speed:+5.1f}, power {power:+5.1f}")


def spearman_by_group(rows: Sequence[Row], token_j: Array) -> list[float]:
    """Rank correlation of J/token over the configurations of each model, GPU and task."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.gpu, row.model, row.task), []).append(index)
    measured = _measured(rows)[:, 0]
    return [
        float(np.corrcoef(_ranks(measured[indices]), _ranks(token_j[indices]))[0, 1])
        for indices in groups.values()
        if len(indices) >= 3
    ]


def _ranks(values: Array) -> Array:
    return np.argsort(np.argsort(values)).astype(float)


def print_limits(path: Path) -> None:
    """Print the errors of a power-limit sweep of a dense 27B int4 model."""
    gpu = load_gpu("RTX-PRO-6000")
    steps = StepModel(_in_four_bits(load_model("Qwen/Qwen3.6-27B")), gpu)
    with path.open(encoding="utf-8", newline="") as file:
        errors = [_limit_errors(record, steps, gpu) for record in csv.DictReader(file)]
    throughput, token_j = 100 * np.median(np.abs(np.array(errors)), axis=0)
    print(
        f"{gpu.name}: {len(errors)} rows, median error of throughput {throughput:.1f} %,"
        f" of J/token {token_j:.1f} %"
    )


def _in_four_bits(model: ModelShape) -> ModelShape:
    """Return the model with int4 weights in groups of 128."""
    four = Weights((4 + 32 / 128) / 8)
    assert model.mlp is not None
    assert model.recurrent is not None
    return replace(
        model,
        attention=replace(model.attention, weights=four),
        mlp=replace(model.mlp, weights=four),
        recurrent=replace(model.recurrent, weights=four),
    )


def _limit_errors(record: Mapping[str, str], steps: StepModel, gpu: Gpu) -> tuple[float, float]:
    count, limit_w = int(record["concurrency"]), float(record["power_limit_W"])
    context = count * int(record["max_tokens"])  # prompt and half of the answer
    batch = Batch(count, context, sampled_sequences=count, scheduled_sequences=count)
    cost = PowerModel.under(gpu, {"power_limit_w": limit_w}).step(steps.parts(batch))
    throughput = count / cost.duration_s
    print(
        f"  {count:3d} at {limit_w:.0f} W: {throughput:7.1f} tok/s, {cost.power_w:.0f} W;"
        f" measured {float(record['output_throughput_tok_s']):7.1f} tok/s,"
        f" {float(record['mean_power_W']):.0f} W"
    )
    measured = float(record["output_throughput_tok_s"])
    token_j = cost.power_w / throughput
    return throughput / measured - 1, token_j / float(record["energy_per_token_J"]) - 1


if __name__ == "__main__":
    main()
