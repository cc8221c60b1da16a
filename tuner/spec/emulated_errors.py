"""How far the emulated figures of a study or a measurement may be off, from what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuner.errors import UsageError
from tuner.metrics import METRICS, OUTPUT_KINDS

if TYPE_CHECKING:
    from tuner.catalog.gpu import Gpu

_ENERGY_ONLY = ("energy_per_", "mean_power_w")


def emulated_errors(asked: Mapping[str, Any], *, energy: bool, latency: bool) -> dict[str, float]:
    """Return the error of each metric, as a share of its value, by the fields of a spec.

    `energy` and `latency` say what is emulated. Nothing is returned for what is not, and for a
    model or a GPU that is not known any more.
    """
    if not (energy or latency):
        return {}
    return {
        metric: error
        for metric, error in _stated(asked).items()
        if (energy if metric.startswith(_ENERGY_ONLY) else latency)
    }


def _stated(asked: Mapping[str, Any]) -> dict[str, float]:
    # imported here: what was measured on real GPUs needs no catalog, which takes long to load
    from tuner.catalog.accuracy import stated_errors
    from tuner.catalog.diffusion.model import is_diffusion_model
    from tuner.catalog.gpu import load_gpu
    from tuner.catalog.model import load_model

    name = asked.get("emulate") or asked.get("energy_gpu") or "H100-SXM"
    engine = asked.get("engine") if asked.get("emulate") else None
    try:
        gpu, model = load_gpu(str(name), engine), str(asked.get("model"))
        if is_diffusion_model(model):
            return _of_generations(gpu)
        return dict(stated_errors(gpu, load_model(model)))
    except UsageError:
        return {}


def _of_generations(gpu: Gpu) -> dict[str, float]:
    """Return the errors of images and videos: power has those of energy and of latency."""
    from tuner.catalog.diffusion.constants import diffusion_constants

    known = diffusion_constants(gpu.name).errors
    kinds = [kind for kind in OUTPUT_KINDS.values() if not kind.output.is_text]
    own = [name for name in METRICS if not all(kind.lacks(name) for kind in kinds)]
    of_energy = [name for name in own if name.startswith(_ENERGY_ONLY)]
    rates = {"request_throughput_req_s", "goodput_req_s", *(kind.throughput for kind in kinds)}
    latencies = {name for kind in kinds for name in kind.latencies}
    of_latency = [n for n in own if n in rates or n.partition("_")[2] in latencies]
    return dict.fromkeys(of_energy, known["energy"]) | dict.fromkeys(of_latency, known["latency"])
