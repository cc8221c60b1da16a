"""Power of one GPU: voltage and clock, what a step costs, and the governor that keeps a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tuner.catalog.gpu import CLOCK_STEP_MHZ, Gpu
from tuner.configuration import DEVICE_KNOBS, Value
from tuner.emulator.engine.step import StepParts
from tuner.errors import UsageError, unknown_name


class StepCost(NamedTuple):
    """Time and mean power of one step on one GPU, and the clock that it runs at."""

    duration_s: float
    power_w: float
    clock_mhz: float


class AtClock(NamedTuple):
    """What a clock alone decides."""

    slower: float  # of what the clock drives, as a factor of its time at the highest one
    starved: float  # the same for memory
    awake_w: float
    switching: float


@dataclass(frozen=True, slots=True)
class PowerModel:
    """One GPU under a power limit and an optional locked SM clock."""

    gpu: Gpu
    limit_w: float
    highest_clock_mhz: int
    _clocks: dict[float, AtClock] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def under(cls, gpu: Gpu, device: Mapping[str, Value]) -> PowerModel:
        """Build from the device knobs; raises `UsageError` for what the GPU would refuse."""
        for name in device:
            if name not in DEVICE_KNOBS:
                raise UsageError(unknown_name("device knob", name, DEVICE_KNOBS))
        if "power_profile" in device:
            raise UsageError("power_profile: the profiles of a GPU's driver are not emulated")
        limit_w = _number(device, "power_limit_w", gpu.default_limit_w)
        if not gpu.min_limit_w <= limit_w <= gpu.max_limit_w:
            raise UsageError(
                f"power_limit_w={limit_w:g} is out of range: {gpu.name} takes"
                f" {gpu.min_limit_w:g} to {gpu.max_limit_w:g} W"
            )
        clock_mhz = _number(device, "sm_clock_mhz", float(gpu.max_clock_mhz))
        if not gpu.min_clock_mhz <= clock_mhz <= gpu.max_clock_mhz:
            raise UsageError(
                f"sm_clock_mhz={clock_mhz:g} is out of range: {gpu.name} takes"
                f" {gpu.min_clock_mhz} to {gpu.max_clock_mhz} MHz"
            )
        steps = int(clock_mhz - gpu.min_clock_mhz) // CLOCK_STEP_MHZ
        return cls(gpu, limit_w, gpu.min_clock_mhz + steps * CLOCK_STEP_MHZ)

    def voltage(self, clock_mhz: float) -> float:
        """Voltage relative to that at the highest clock: flat up to the knee, then linear."""
        gpu = self.gpu
        if clock_mhz <= gpu.knee_mhz:
            return gpu.knee_voltage
        share = (clock_mhz - gpu.knee_mhz) / (gpu.max_clock_mhz - gpu.knee_mhz)
        return gpu.knee_voltage + (1.0 - gpu.knee_voltage) * share

    def at_clock(self, parts: StepParts, clock_mhz: float) -> StepCost:
        """Return time and power of a step at a clock, whatever the limit is."""
        gpu = self.gpu
        slower, starved, awake_w, switching = self.at(clock_mhz)
        (
            linear_compute_s,
            linear_memory_s,
            expert_compute_s,
            expert_memory_s,
            attention_compute_s,
            attention_memory_s,
            kernel_s,
            prefill_s,
            host_s,
            host_overlap,
            memory_bytes,
            matrix_s,
            expert_balance,
        ) = parts
        shared = 1.0 - gpu.roofline_overlap
        linear_s = roofline_s(linear_compute_s * slower, linear_memory_s * starved, shared)
        attention_s = roofline_s(attention_compute_s * slower, attention_memory_s * starved, shared)
        expert_s = roofline_s(expert_compute_s * slower, expert_memory_s * starved, shared)
        slow_prefill_s = prefill_s * slower
        busy_s = linear_s + expert_s + attention_s + slow_prefill_s + kernel_s
        duration_s = busy_s + host_s - host_overlap * min(busy_s, host_s)
        streaming_s = linear_s + expert_s * expert_balance + attention_s + slow_prefill_s
        compute_s = slower * (matrix_s + prefill_s * gpu.prefill_activity)
        core_w = switching * (gpu.stall_w * streaming_s + gpu.compute_w * compute_s) / duration_s
        memory_w = gpu.memory_pj_per_byte * 1e-12 * memory_bytes / duration_s
        return StepCost(duration_s, awake_w + core_w + memory_w, clock_mhz)

    def at(self, clock_mhz: float) -> AtClock:
        """Return what a clock alone decides; it is worked out once."""
        known = self._clocks.get(clock_mhz)
        if known is None:
            known = self._clocks[clock_mhz] = self._worked_out(clock_mhz)
        return known

    def _worked_out(self, clock_mhz: float) -> AtClock:
        gpu = self.gpu
        slower = gpu.max_clock_mhz / clock_mhz
        voltage_squared = self.voltage(clock_mhz) ** 2
        return AtClock(
            slower,
            max(1.0, gpu.full_bandwidth_mhz / clock_mhz),
            gpu.idle_w + (self._awake_w + gpu.active_w) * voltage_squared,
            voltage_squared / slower,
        )

    def clock_for(self, parts: StepParts, near_mhz: float | None = None) -> int:
        """Return the highest clock step at which the step's power keeps the limit.

        The lowest clock is the floor, even if it does not keep the limit. The answer is found
        sooner if it is close to `near_mhz`.
        """
        return int(self.step(parts, near_mhz).clock_mhz)

    def step(self, parts: StepParts, near_mhz: float | None = None) -> StepCost:
        """Return the cost of a step under the limit and the locked clock; as `clock_for`."""
        return self.governed(lambda clock_mhz: self.at_clock(parts, clock_mhz), near_mhz)

    def governed(
        self, at_clock: Callable[[float], StepCost], near_mhz: float | None = None
    ) -> StepCost:
        """Return the cost at the clock of `clock_for`; `at_clock` gives that of any clock."""
        allowed_w = self.allowed_w
        low, high = self.gpu.min_clock_mhz, self.highest_clock_mhz
        low_step, high_step = 0, (high - low) // CLOCK_STEP_MHZ
        tried = high_step if near_mhz is None else int(near_mhz - low) // CLOCK_STEP_MHZ
        width, best = 1, None
        while low_step < tried < high_step:
            cost = at_clock(low + tried * CLOCK_STEP_MHZ)
            if cost.power_w <= allowed_w:
                low_step, best, tried = tried, cost, tried + width
            else:
                high_step, tried = tried, tried - width
            width *= 4
        if high == low + high_step * CLOCK_STEP_MHZ:  # not tried yet
            cost = at_clock(high)
            if cost.power_w <= allowed_w:
                return cost
        while high_step - low_step > 1:
            middle = (low_step + high_step) // 2
            cost = at_clock(low + middle * CLOCK_STEP_MHZ)
            if cost.power_w <= allowed_w:
                low_step, best = middle, cost
            else:
                high_step = middle
        return at_clock(low) if best is None else best

    @property
    def allowed_w(self) -> float:
        """The most power that a step may draw: what a board uses of its limit, and can cool."""
        allowed_w = self.limit_w * self.gpu.limit_use
        thermal = self.gpu.thermal
        return allowed_w if thermal is None else min(allowed_w, thermal.limit_w)

    @property
    def idle_w(self) -> float:
        """Power with the model loaded and nothing to do, at the highest allowed clock."""
        return self.gpu.idle_w + self._awake_w * self.voltage(self.highest_clock_mhz) ** 2

    @property
    def _awake_w(self) -> float:
        """What a loaded model and the card's warmth add, at the highest voltage."""
        gpu = self.gpu
        leakage_w = 0.0 if gpu.thermal is None else gpu.thermal.leakage_w
        return gpu.loaded_idle_w - gpu.idle_w + leakage_w


def roofline_s(compute_s: float, memory_s: float, shared: float) -> float:
    """Return the longer time, and a share of the shorter one."""
    if compute_s > memory_s:
        return compute_s + shared * memory_s
    return memory_s + shared * compute_s


def _number(device: Mapping[str, Value], name: str, default: float) -> float:
    if name not in device:
        return default
    value = device[name]
    if isinstance(value, (bool, str)):
        raise UsageError(f"{name} must be a number, found {value!r}")
    return float(value)
