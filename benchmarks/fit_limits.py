"""Fit the power and clock constants of a card to sweeps of its power limit or its clock.

    python benchmarks/fit_limits.py GPU ROWS.csv...

The shape of each sweep counts, and its power; what the engine and the exact weights are is one
factor for each sweep. Printed are the constants, the errors, and those of each model left out.
Needs SciPy. Nothing is written: copy the constants into the GPU's file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from limit_rows import LimitRow, predicted, read_limit_rows, shape_errors
from priors import LIMITS, Array, columns, pseudo_huber

from tuner.catalog.gpu import Gpu, load_gpu

_SCALE = 0.05
_ROWS = 60  # so many count as much as all priors together, however many there are
_USUAL_LIMIT_W = 600.0
_LOW, _HIGH, _VALUE, _DEVIATION = columns(LIMITS)


def main() -> None:
    """Read the files, fit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("gpu")
    parser.add_argument("rows", type=Path, nargs="+")
    options = parser.parse_args()
    gpu = load_gpu(options.gpu)
    everything = [row for path in options.rows for row in read_limit_rows(path)[0]]
    rows = [row for row in everything if row.gpu == gpu.name]
    found = best(rows, gpu)
    fitted = at(gpu, found)
    for name in ("knee_mhz", "full_bandwidth_mhz", *(n for n in LIMITS if hasattr(fitted, n))):
        print(f"{name}: {getattr(fitted, name):.4g}")
    print_errors("fitted", rows, fitted)
    for model in sorted({row.model for row in rows}):
        rest = [row for row in rows if row.model != model]
        if rest:
            without = at(gpu, fit(rest, gpu, found, 8))
            print_errors(f"without {model}", [row for row in rows if row.model == model], without)


def best(rows: Sequence[LimitRow], gpu: Gpu) -> Array:
    """Return the better one of two fits: from the shipped constants, and from the priors."""
    shipped = fit(rows, gpu, position_of(gpu), 25)
    fresh = fit(rows, gpu, _centre(gpu), 25)
    errors = [np.abs(shape_errors(rows, predicted(rows, at(gpu, p)))) for p in (shipped, fresh)]
    return shipped if np.median(errors[0][:, 2]) <= np.median(errors[1][:, 2]) else fresh


def fit(rows: Sequence[LimitRow], gpu: Gpu, start: Array, most: int) -> Array:
    """Return the constants, as logarithms in the order of LIMITS, that fit the rows best."""
    from scipy.optimize import least_squares

    centre = _centre(gpu)

    def residuals(position: Array) -> Array:
        errors = shape_errors(rows, predicted(rows, at(gpu, position)))[:, :2]
        of_rows = pseudo_huber(errors.ravel() / _SCALE) * np.sqrt(_ROWS / len(rows))
        return np.concatenate([of_rows, (position - centre) / _DEVIATION])

    inside = np.clip(start, _LOW + 1e-3, _HIGH - 1e-3)
    found = least_squares(
        residuals, inside, bounds=(_LOW, _HIGH), max_nfev=most, diff_step=3e-3, x_scale=0.3
    )
    return np.asarray(found.x)


def at(gpu: Gpu, position: Array) -> Gpu:
    """Return the GPU with these constants."""
    values = {n: float(np.exp(value)) for n, value in zip(LIMITS, position, strict=True)}
    share = values.pop("knee_share")
    values["knee_mhz"] = gpu.min_clock_mhz + share * (gpu.max_clock_mhz - gpu.min_clock_mhz)
    values["full_bandwidth_mhz"] = values.pop("bandwidth_share") * gpu.max_clock_mhz
    return gpu.model_copy(update=values)


def position_of(gpu: Gpu) -> Array:
    """Return the constants of a GPU."""
    values = {name: getattr(gpu, name, 1.0) for name in LIMITS}
    knee = gpu.knee_mhz - gpu.min_clock_mhz
    values["knee_share"] = knee / (gpu.max_clock_mhz - gpu.min_clock_mhz)
    values["bandwidth_share"] = gpu.full_bandwidth_mhz / gpu.max_clock_mhz
    return np.log([values[name] for name in LIMITS])


def _centre(gpu: Gpu) -> Array:
    """Return what is expected: watts grow with the card's limit."""
    scale = np.log(gpu.default_limit_w / _USUAL_LIMIT_W)
    return _VALUE + np.array([scale if name.endswith("_w") else 0.0 for name in LIMITS])


def print_errors(label: str, rows: Sequence[LimitRow], gpu: Gpu) -> None:
    """Print median and 90th percentile of the absolute errors, %."""
    errors = 100 * np.abs(np.expm1(shape_errors(rows, predicted(rows, gpu))))
    cells = "  ".join(
        f"{name} {np.median(column):5.1f} /{np.percentile(column, 90):5.1f}"
        for name, column in zip(("tok/s", "W", "J/token"), errors.T, strict=True)
    )
    print(f"{label:40s} {len(rows):4d}  {cells}")


if __name__ == "__main__":
    main()
