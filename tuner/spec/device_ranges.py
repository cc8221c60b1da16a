"""Device ranges: a card's power limits and SM clocks, and knobs given as shares of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuner.catalog.gpu import CLOCK_STEP_MHZ, Gpu, load_gpu
from tuner.devices.device_state import DeviceState
from tuner.devices.meter import Meter
from tuner.devices.open import open_meter
from tuner.errors import UsageError
from tuner.spec.study import StudySpec


@dataclass(frozen=True, slots=True)
class DeviceRange:
    """The settings of a card: `low` to `high` in steps of `unit`, counted from `high`."""

    low: float
    high: float
    unit: int


DeviceRanges: TypeAlias = Mapping[str, DeviceRange]  # by device knob


class Share(BaseModel):
    """A device knob from `low` to `high` of the card's highest value, in about `steps` steps.

    `share: [LOW, HIGH]` is short for it. Values that the card cannot be set to are cut off, so that
    `low` may be below its lowest value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["share"]
    low: float = Field(gt=0, lt=1)
    high: float = Field(gt=0, le=1)
    steps: int = Field(default=20, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        ends = data.get("share") if isinstance(data, dict) else None
        if not isinstance(ends, list):
            return data
        if len(ends) != 2:
            raise ValueError(f"share: found {len(ends)} numbers; write [LOW, HIGH]")
        others = {name: value for name, value in data.items() if name != "share"}
        return {"type": "share", "low": ends[0], "high": ends[1], **others}

    @model_validator(mode="after")
    def _ordered(self) -> Share:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        return self

    def on(self, card: DeviceRange) -> dict[str, Any]:
        """Return the knob in watts or MHz: a range of integers that ends at the highest value.

        Steps are whole multiples of the card's unit. The lowest value is the possible setting
        nearest to the share.
        """
        lowest = max(self.low * card.high, card.low)
        high = math.floor(self.high * card.high)
        most_units = max(1, int((high - card.low) // card.unit))
        units = round((high - lowest) / self.steps / card.unit)
        step = card.unit * min(max(1, units), most_units)
        count = max(1, round((high - lowest) / step))
        while count > 1 and high - count * step < card.low:
            count -= 1
        return {"type": "int", "low": high - count * step, "high": high, "step": step}


def ranges_of_gpu(gpu: Gpu) -> DeviceRanges:
    """Return the ranges of an emulated GPU."""
    return {
        "power_limit_w": DeviceRange(gpu.min_limit_w, gpu.max_limit_w, 1),
        "sm_clock_mhz": DeviceRange(gpu.min_clock_mhz, gpu.max_clock_mhz, CLOCK_STEP_MHZ),
    }


def ranges_of_devices(states: Sequence[DeviceState]) -> DeviceRanges:
    """Return the ranges common to these GPUs, without knobs that one of them does not report."""
    ranges = {}
    lows_w = [w for state in states if (w := state.min_power_limit_w) is not None]
    highs_w = [w for state in states if (w := state.max_power_limit_w) is not None]
    highs_mhz = [mhz for state in states if (mhz := state.max_sm_clock_mhz) is not None]
    if states and len(lows_w) == len(highs_w) == len(states):
        ranges["power_limit_w"] = DeviceRange(max(lows_w), min(highs_w), 1)
    if states and len(highs_mhz) == len(states):
        # NVML does not report the lowest clock; it only refuses one that is too low
        ranges["sm_clock_mhz"] = DeviceRange(0, min(highs_mhz), CLOCK_STEP_MHZ)
    return ranges


def ranges_for(spec: StudySpec) -> DeviceRanges:
    """Return the ranges of the GPUs that the spec's server uses, real or emulated.

    If there is no real GPU or it does not report its range, these are the ranges of `energy_gpu`;
    opening the device knobs then says that they cannot be set. Raises `OperatorNeededError` if a
    GPU does not answer.
    """
    if spec.emulate is not None:
        return ranges_of_gpu(load_gpu(spec.emulate, spec.engine))
    fallback = ranges_of_gpu(load_gpu(spec.energy_gpu))
    meter = open_meter()
    if meter is None:
        return fallback
    with closing(meter):
        return {**fallback, **ranges_of_devices(meter.states())}


def gpus_for(spec: StudySpec) -> int | None:
    """Return how many GPUs the study may use; None if there is no NVML to count them.

    Raises `OperatorNeededError` if a GPU does not answer, `UsageError` for more than there are.
    """
    if spec.base_url is not None:
        return None
    if spec.has_cards:
        return spec.gpus or 1
    if spec.emulate is not None:
        there: int | None = load_gpu(spec.emulate).max_gpus
    else:
        there = None if (meter := open_meter()) is None else _count(meter)
    if spec.gpus is not None and there is not None and spec.gpus > there:
        raise UsageError(f"--gpus {spec.gpus}: there are {there} GPUs here")
    return there if spec.gpus is None else spec.gpus


def _count(meter: Meter) -> int:
    with closing(meter):
        return len(meter.states())


def example_ranges() -> DeviceRanges:
    """Return the ranges of an example card, for callers that need only names and fixed flags."""
    return ranges_of_gpu(load_gpu("H100-SXM"))
