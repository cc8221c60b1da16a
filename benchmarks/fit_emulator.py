"""Fit vLLM 0.11's profile and the constants of H100 and B200 to measured rows, together.

    python benchmarks/fit_emulator.py ROWS.csv LENGTHS.csv [--held-out]

ROWS are those of the ML.ENERGY benchmark v3, LENGTHS quantiles of its output lengths. Times that
belong to the server are the same on both GPUs; what belongs to the card is not. Where matrix
products were measured on the GPU, the fit is held to them, and finds how voltage grows too.
`--held-out` also fits without each family of models and prints the errors of what was left out, and
of each GPU with the efficiencies of the other. Needs SciPy. Nothing is written: copy the constants
into `tuner/catalog/engines/` and `tuner/catalog/gpus/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from fast_rows import Table
from measured_rows import METRICS, Lengths, Row, read_rows, trace
from priors import CARD, ENGINE, VOLTAGE, Array, Prior, cauchy, columns
from product_rows import PRODUCTS, product_errors

from tuner.catalog.accuracy import kind_of
from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import load_model

PROFILE = "vllm-0.11"
_WEIGHTS = np.array([1.0, 1.2, 1.0, 0.7])  # of METRICS
_SCALE = 0.1  # an error well beyond it, as of a host that was busy otherwise, pulls no more
_PRODUCT_WEIGHT = 30.0
_GROUP_POWER = -0.35  # a model with many rows counts for more, but not for as many
_FAMILIES = ("Qwen3-235B-A22B", "Qwen3-30B-A3B", "Nemotron-Nano", "Llama-3.1-405B", "DeepSeek")

Name = tuple[str, str | None]  # of a constant, and the GPU whose it is


class JointFit:
    """The constants of the server, and of each GPU, as one vector of logarithms."""

    def __init__(self, rows: Sequence[Row], lengths: Lengths) -> None:
        self.rows = rows
        self.base = {name: load_gpu(name, PROFILE) for name in sorted({r.gpu for r in rows})}
        priors: dict[Name, Prior] = {(name, None): prior for name, prior in ENGINE.items()}
        for gpu in self.base:
            own = {**CARD, **VOLTAGE} if gpu in PRODUCTS else CARD
            priors |= {(name, gpu): prior for name, prior in own.items()}
        self.names = tuple(priors)
        self.low, self.high, self.value, self.deviation = columns(
            {f"{name} {gpu}": prior for (name, gpu), prior in priors.items()}
        )
        self._places = {g: [i for i, r in enumerate(rows) if r.gpu == g] for g in self.base}
        self._tables = {
            gpu: Table([rows[i] for i in places], [trace(rows[i], lengths) for i in places], base)
            for (gpu, places), base in zip(self._places.items(), self.base.values(), strict=True)
        }
        self.target = np.log([[getattr(row, name) for name in METRICS] for row in rows])
        groups: dict[tuple[str, str, int], list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault((row.gpu, row.model, row.gpus), []).append(index)
        self._weights = np.empty(len(rows))
        for indices in groups.values():
            self._weights[indices] = len(indices) ** _GROUP_POWER
        self._weights /= np.sqrt(np.mean(self._weights**2))

    def gpus(self, position: Array) -> dict[str, Gpu]:
        """Return each GPU with these constants."""
        return {
            gpu: base.model_copy(
                update={
                    name: float(np.exp(value))
                    for (name, owner), value in zip(self.names, position, strict=True)
                    if owner in (None, gpu)
                }
            )
            for gpu, base in self.base.items()
        }

    def predict(self, gpus: Mapping[str, Gpu]) -> Array:
        """Return the metrics of every row, in the order of METRICS."""
        found = np.empty((len(self.rows), len(METRICS)))
        for name, places in self._places.items():
            found[places] = self._tables[name].predict(gpus[name])
        return found

    def start(self) -> Array:
        """Return the shipped constants."""
        shipped = [getattr(self.base[gpu or next(iter(self.base))], n) for n, gpu in self.names]
        return np.clip(np.log(shipped), self.low + 1e-3, self.high - 1e-3)

    def fit(self, chosen: Array, start: Array, most: int) -> Array:
        """Return the constants that fit the chosen rows best."""
        from scipy.optimize import least_squares

        def residuals(position: Array) -> Array:
            gpus = self.gpus(position)
            errors = (np.log(self.predict(gpus)) - self.target) * _WEIGHTS
            of_rows = cauchy((errors * self._weights[:, None])[chosen].ravel() / _SCALE)
            products = [_PRODUCT_WEIGHT * product_errors(gpu) for gpu in gpus.values()]
            return np.concatenate([of_rows, *products, (position - self.value) / self.deviation])

        found = least_squares(
            residuals,
            start,
            bounds=(self.low, self.high),
            max_nfev=most,
            diff_step=2e-3,
            x_scale=0.3,
        )
        return np.asarray(found.x)


def main() -> None:
    """Read the files, fit, print constants and errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rows", type=Path)
    parser.add_argument("lengths", type=Path)
    parser.add_argument("--held-out", action="store_true")
    options = parser.parse_args()
    rows = read_rows(options.rows)
    fit = JointFit(rows, Lengths(options.lengths))
    found = fit.fit(np.ones(len(rows), bool), fit.start(), 20)
    print_constants(fit, found)
    print_kinds("fitted", rows, fit.predict(fit.gpus(found)))
    for gpu in fit.gpus(found).values():
        print_products(gpu)
    if options.held_out:
        without, other = left_out(fit, found), fit.predict(exchanged(fit, found))
        print_kinds("left out", rows, without)
        print_kinds("the other GPU's efficiencies", rows, other)
        print_stated("left out", rows, without)
        print_stated("other", rows, other)


def left_out(fit: JointFit, found: Array) -> Array:
    """Return what is predicted of each row without its family of models, on either GPU."""
    predicted = np.empty((len(fit.rows), len(METRICS)))
    for family in sorted({family_of(row.model) for row in fit.rows}):
        out = np.array([family_of(row.model) == family for row in fit.rows])
        predicted[out] = fit.predict(fit.gpus(fit.fit(~out, found, 4)))[out]
    return predicted


def exchanged(fit: JointFit, found: Array) -> dict[str, Gpu]:
    """Return each GPU as one without rows would be: the other's constants, watts by its limit."""
    first, second = fit.gpus(found).values()
    return {gpu.name: like(gpu, other) for gpu, other in ((first, second), (second, first))}


def like(gpu: Gpu, other: Gpu) -> Gpu:
    """Return a GPU with its own data sheet and the fitted constants of another."""
    scale = gpu.default_limit_w / other.default_limit_w
    watts = {name: getattr(other, name) * scale for name in ("active_w", "stall_w", "compute_w")}
    return gpu.model_copy(update={name: getattr(other, name) for name in CARD} | watts)


def family_of(model: str) -> str:
    """Return what is left out together: sizes of one architecture, by precision."""
    name = model.split("/")[1]
    family = next((family for family in _FAMILIES if family in name), name)
    return family + ("-FP8" if "FP8" in name else "")


def print_constants(fit: JointFit, found: Array) -> None:
    for (name, gpu), value in zip(fit.names, np.exp(found), strict=True):
        print(f"{gpu or PROFILE:10s} {name}: {value:.3g}")


def print_kinds(label: str, rows: Sequence[Row], predicted: Array) -> None:
    """Print median and 90th percentile of the absolute error, %, by GPU and kind of model."""
    measured = np.array([[getattr(row, name) for name in METRICS] for row in rows])
    errors = 100 * np.abs(predicted / measured - 1)
    experts = {name: load_model(name).moe is not None for name in {row.model for row in rows}}
    kinds = [(row.gpu, "experts" if experts[row.model] else "dense") for row in rows]
    for kind in sorted(set(kinds)):
        chosen = [own == kind for own in kinds]
        cells = "  ".join(
            f"{name} {np.median(column):5.1f} /{np.percentile(column, 90):5.1f}"
            for name, column in zip(METRICS, errors[chosen].T, strict=True)
        )
        print(f"{label}: {' '.join(kind):20s} {sum(chosen):4d}  {cells}")


def print_stated(label: str, rows: Sequence[Row], predicted: Array) -> None:
    """Print what `tuner/catalog/accuracy.yaml` states: the 92nd percentile of |measured / it - 1|.

    `other` takes the rows of both GPUs together.
    """
    measured = np.array([[getattr(row, name) for name in METRICS] for row in rows])
    errors = np.abs(measured / predicted - 1)
    of_model = {name: kind_of(load_model(name)) for name in {row.model for row in rows}}
    kinds = [("" if label == "other" else row.gpu, of_model[row.model]) for row in rows]
    for kind in sorted(set(kinds)):
        chosen = np.array([own == kind for own in kinds])
        cells = "  ".join(
            f"{name} {np.percentile(column, 92):.2f}"
            for name, column in zip(METRICS, errors[chosen].T, strict=True)
        )
        print(f"stated, {label}: {' '.join(kind):22s} {chosen.sum():4d}  {cells}")


def print_products(gpu: Gpu) -> None:
    """Print the errors of speed and power of each measured matrix product, %."""
    errors = 100 * np.expm1(product_errors(gpu).reshape(-1, 2))
    for product, (speed, power) in zip(PRODUCTS.get(gpu.name, ()), errors, strict=True):
        print(f"  a product of {product.rows:5d} rows: speed {speed:+5.1f}, power {power:+5.1f}")


if __name__ == "__main__":
    main()
