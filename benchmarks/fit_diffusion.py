"""Fit the constants of images and videos to measured rows, and print held-out errors.

    python benchmarks/fit_diffusion.py ROWS.csv [--held-out] [--others ROWS.csv] [--shipped]

ROWS are those of the ML.ENERGY benchmark v3, text to image and text to video (xDiT): batches one
after another, on one GPU or several. A constant is pulled to a prior by as much as one row.
`--held-out` also fits without each model, and prints the errors of its rows; `--others` prints
those of rows that were not fitted at all. Needs SciPy. Nothing is written: copy the constants into
`tuner/catalog/diffusion/constants.yaml`.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from tuner.catalog.diffusion.constants import DiffusionConstants, diffusion_constants
from tuner.catalog.diffusion.model import DiffusionModel, load_diffusion_model
from tuner.catalog.gpu import Gpu, load_gpu
from tuner.emulator.diffusion.cost import DiffusionCost, Picture
from tuner.emulator.diffusion.launch import DiffusionLaunch
from tuner.emulator.engine.power import PowerModel

GPUS = {"H100": "H100-SXM", "B200": "B200-SXM"}
# value where the data say nothing; B200's differ by its peak
TIMES = {
    "linear_efficiency": 0.55,
    "attention_efficiency": 0.35,
    "traffic_bytes": 150.0,
    "layer_us": 50.0,
    "host_us": 1000.0,
    "ulysses_us": 100.0,
    "ulysses_gb_s": 50.0,
    "ring_us": 100.0,
    "ring_gb_s": 50.0,
    "ring_share": 0.005,
    "image_pixel_ns": 100.0,
    "video_pixel_ns": 160.0,
    "encode_ms": 30.0,
}
WATTS = {  # shares of the highest limit
    "linear_w": 0.93,
    "attention_w": 0.93,
    "traffic_w": 0.70,
    "wait_w": 0.36,
    "decode_w": 0.43,
}
_SCALE = 0.1  # an error well beyond it pulls no more
_GROUP_POWER = -0.7  # a model with many rows counts for hardly more
_TIME_PULL, _WATT_PULL = 1.0, 2.0

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured configuration: `latency_s` and `energy_j` are of a batch, over all GPUs."""

    model: DiffusionModel
    picture: Picture
    launch: DiffusionLaunch
    batch: int
    latency_s: float
    energy_j: float


def read(path: Path, gpu: str) -> list[Row]:
    """Return the rows of one GPU."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["gpu_model"] == gpu]
    return [
        Row(
            load_diffusion_model(row["model"]).model_copy(update={"measured_factor": 1.0}),
            Picture(
                int(row["height"]),
                int(row["width"]),
                int(float(row["num_frames"] or 1)),
                int(row["inference_steps"]),
            ),
            DiffusionLaunch(
                int(row["batch_size"]), 0, int(row["ulysses_degree"]), int(row["ring_degree"]), 1
            ),
            int(row["batch_size"]),
            float(row["batch_latency_s"]),
            float(row["energy_per_generation_J"]) * int(row["batch_size"]),
        )
        for row in rows
    ]


class Fit:
    """The constants of one GPU, as vectors of logarithms."""

    def __init__(self, gpu: Gpu, rows: Sequence[Row]) -> None:
        self.gpu, self.rows = gpu, rows
        self._power = PowerModel.under(gpu, {})
        counts = Counter(row.model.name for row in rows)
        weights = np.array([counts[row.model.name] ** _GROUP_POWER for row in rows])
        self._weights = weights / weights.mean()
        self._times = np.log(list(TIMES.values()))
        self._watts = np.log([share * gpu.max_limit_w for share in WATTS.values()])

    def constants(self, times: Array, watts: Array) -> DiffusionConstants:
        """Return the constants of two vectors."""
        values = [*np.exp(times).tolist(), *np.exp(watts).tolist()]
        return DiffusionConstants(**dict(zip((*TIMES, *WATTS), values, strict=True)))

    def run(self) -> DiffusionConstants:
        """Fit times first, then powers, then both once more: a limit that binds slows work down."""
        times, watts = self._times, self._watts
        for _ in range(2):
            times = self._solved(times, lambda t, w=watts: self._time_misses(t, w), _upper(times))
            watts = self._solved(watts, lambda w, t=times: self._watt_misses(t, w), None)
        return self.constants(times, watts)

    def _solved(self, start, misses, upper):  # type: ignore[no-untyped-def]
        bounds = (-np.inf, np.inf if upper is None else upper)
        found = least_squares(misses, start, bounds=bounds, loss="soft_l1", f_scale=_SCALE)
        return found.x

    def _time_misses(self, times: Array, watts: Array) -> Array:
        missed = errors(self.gpu, self.constants(times, watts), self.rows, self._power)[0]
        pulls = 0.1 * _TIME_PULL * (times - self._times)
        return np.concatenate([self._weights * missed, pulls])

    def _watt_misses(self, times: Array, watts: Array) -> Array:
        missed = errors(self.gpu, self.constants(times, watts), self.rows, self._power)[1]
        pulls = 0.1 * _WATT_PULL * (watts - self._watts)
        return np.concatenate([self._weights * missed, pulls])


def _upper(times: Array) -> Array:
    """No efficiency is above 0.9."""
    caps = [np.log(0.9) if name.endswith("_efficiency") else np.inf for name in TIMES]
    return np.maximum(np.array(caps), -np.inf)


def errors(
    gpu: Gpu, known: DiffusionConstants, rows: Sequence[Row], power: PowerModel
) -> tuple[Array, Array]:
    """Return log(emulated / measured) of latency and of energy, each of shape (rows,)."""
    found = []
    for row in rows:
        cost = DiffusionCost(row.model, gpu, known, row.launch).batch(power, row.picture, row.batch)
        energy_j = cost.duration_s * cost.power_w * row.launch.gpus
        found.append((np.log(cost.duration_s / row.latency_s), np.log(energy_j / row.energy_j)))
    latency, energy = np.array(found).T
    return latency, energy


def factors(
    gpu: Gpu, known: DiffusionConstants, rows: Sequence[Row], power: PowerModel
) -> dict[str, float]:
    """Return for each model measured / emulated latency on one GPU, the geometric mean."""
    latency = errors(gpu, known, rows, power)[0]
    alone = [row.launch.gpus == 1 for row in rows]
    names = sorted({row.model.name for row in rows})
    return {
        name: float(np.exp(-np.mean([e for e, r, is_alone in zip(latency, rows, alone, strict=True)
                                     if is_alone and r.model.name == name])))
        for name in names
    }  # fmt: skip


def told(name: str, latency: Array, energy: Array) -> str:
    """Return a line with the median and the 90th percentile of both errors."""
    cells = [
        f"{np.median(np.abs(e)):6.1%} {np.quantile(np.abs(e), 0.9):6.1%}" for e in (latency, energy)
    ]
    return f"{name:52s} {latency.size:4d} rows  latency {cells[0]}  energy {cells[1]}"


def main() -> None:
    """Fit each GPU and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--others", type=Path)
    parser.add_argument("--shipped", action="store_true", help="fit nothing; with measured_factor")
    asked = parser.parse_args()
    for short, name in GPUS.items():
        gpu, rows = load_gpu(name), read(asked.rows, short)
        power = PowerModel.under(gpu, {})
        if asked.shipped:
            _shipped(gpu, rows, power)
            continue
        known = Fit(gpu, rows).run()
        print(f"{name}:")
        for field, value in known.model_dump(exclude={"errors"}).items():
            print(f"  {field}: {value:.3g}")
        print(told("fitted", *errors(gpu, known, rows, power)))
        for model, factor in factors(gpu, known, rows, power).items():
            print(f"  measured_factor of {model}: {factor:.3f}")
        if asked.others is not None:
            print(told("others", *errors(gpu, known, read(asked.others, short), power)))
        if asked.held_out:
            _held_out(gpu, rows, power)


def _with_factor(row: Row, factor: float) -> Row:
    return replace(row, model=row.model.model_copy(update={"measured_factor": factor}))


def _shipped(gpu: Gpu, rows: Sequence[Row], power: PowerModel) -> None:
    """Print the errors of what is shipped, and of factors on rows that they are not from.

    Every other row of a model gives its factor, which is judged on the rest, and the reverse.
    """
    known = diffusion_constants(gpu.name)
    own = {row.model.name: load_diffusion_model(row.model.name).measured_factor for row in rows}
    shipped = [_with_factor(row, own[row.model.name]) for row in rows]
    print(told(f"{gpu.name}, as shipped", *errors(gpu, known, shipped, power)))
    parts = []
    for half in (0, 1):
        seen, unseen = rows[half::2], rows[1 - half :: 2]
        found = factors(gpu, known, seen, power)
        judged = [_with_factor(row, found[row.model.name]) for row in unseen]
        parts.append(errors(gpu, known, judged, power))
    latency, energy = (np.concatenate(part) for part in zip(*parts, strict=True))
    print(told(f"{gpu.name}, factors of the other half", latency, energy))


def _held_out(gpu: Gpu, rows: Sequence[Row], power: PowerModel) -> None:
    parts = []
    for model in sorted({row.model.name for row in rows}):
        rest = [row for row in rows if row.model.name != model]
        left = [row for row in rows if row.model.name == model]
        parts.append(errors(gpu, Fit(gpu, rest).run(), left, power))
        print(told(f"without {model}", *parts[-1]), flush=True)
    latency, energy = (np.concatenate(part) for part in zip(*parts, strict=True))
    print(told("held out, all", latency, energy))


if __name__ == "__main__":
    main()
