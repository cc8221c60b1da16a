"""How far the emulated figures of a study or a measurement may be off, from what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.catalog.accuracy import stated_errors
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.errors import UsageError

_ENERGY_ONLY = ("energy_per_", "mean_power_w")


def emulated_errors(asked: Mapping[str, Any], *, energy: bool, latency: bool) -> dict[str, float]:
    """Return the error of each metric, as a share of its value, by the fields of a spec.

    `energy` and `latency` say what is emulated. Nothing is returned for what is not, and for a
    model or a GPU that is not known any more.
    """
    if not (energy or latency):
        return {}
    name = asked.get("emulate") or asked.get("energy_gpu") or "H100-SXM"
    engine = asked.get("engine") if asked.get("emulate") else None
    try:
        found = stated_errors(load_gpu(str(name), engine), load_model(str(asked.get("model"))))
    except UsageError:
        return {}
    return {
        metric: error
        for metric, error in found.items()
        if (energy if metric.startswith(_ENERGY_ONLY) else latency)
    }
