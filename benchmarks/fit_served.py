"""Fit vLLM 0.22's profile and the H200's constants to loads that the tuner measured on it.

    python benchmarks/fit_served.py ROWS.csv

Each load is emulated as it was measured, but for more than 128 at a time, two copies of the engine,
an 8-bit cache and 2 requests/s: they are left to judge by. Constants that these loads do not tell
stay as they are. Needs SciPy, and half an hour. Nothing is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from priors import CARD, ENGINE, SERVED, Array, Prior, columns, pseudo_huber
from served_rows import METRICS, ServedRow, figures, read_served_rows

from tuner.catalog.gpu import Gpu, load_gpu

GPU = "H200-SXM"
_FITTED = (
    *("layer_us", "quantize_us", "all_reduce_us", "host_step_us", "host_sequence_us"),
    *("sequence_us", "logit_bytes", "prefill_layer_us", "roofline_overlap"),
    *("token_us", "request_us", "eager_layer_us"),
    *("memory_efficiency", "attention_efficiency", "matrix_efficiency", "link_efficiency"),
    *("active_w", "stall_w", "compute_w", "eight_bit_energy", "prefill_activity"),
    "memory_pj_per_byte",
)
_ALL: dict[str, Prior] = {**ENGINE, **CARD, **SERVED}
_WEIGHTS = {
    "token_j": 1.0,
    "power_w": 1.0,
    "throughput_tok_s": 1.0,
    "itl_ms": 1.0,
    "tpot_ms": 0.7,
    "ttft_ms": 0.6,
    "p99_tpot_ms": 0.2,
    "p99_ttft_ms": 0.2,
}
_SCALE = 0.06
_LEFT_OUT = ("concurrency=512", "request-rate=2", "request-rate=20")


def main() -> None:
    """Read the rows, fit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rows", type=Path)
    everything = read_served_rows(parser.parse_args().rows)
    rows = [row for row in everything if is_fitted(row)]
    for name, value in zip(_FITTED, np.exp(fit(rows, load_gpu(GPU))), strict=True):
        print(f"{name}: {value:.3g}")


def fit(rows: Sequence[ServedRow], gpu: Gpu) -> Array:
    """Return the logarithms of the fitted constants."""
    from scipy.optimize import least_squares

    low, high, value, deviation = columns({name: _ALL[name] for name in _FITTED})

    def residuals(position: Array) -> Array:
        constants = dict(zip(_FITTED, map(float, np.exp(position)), strict=True))
        candidate = gpu.model_copy(update=constants)
        errors = []
        for row in rows:
            found = figures(row, candidate)
            errors += [
                weight * np.log(found[METRICS[name]] / row.measured[name]) / _SCALE
                for name, weight in _WEIGHTS.items()
            ]
        return np.concatenate([pseudo_huber(np.array(errors)), (position - value) / deviation])

    start = np.clip(np.log([getattr(gpu, n) for n in _FITTED]), low + 1e-3, high - 1e-3)
    found = least_squares(
        residuals, start, bounds=(low, high), max_nfev=6, diff_step=0.01, x_scale=0.3
    )
    return np.asarray(found.x)


def is_fitted(row: ServedRow) -> bool:
    return row.variant not in ("normal", "kvfp8", "dp2") and row.load not in _LEFT_OUT


if __name__ == "__main__":
    main()
