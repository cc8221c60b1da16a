"""Power of one GPU: voltage and clock, what a step costs, and the governor that keeps a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.catalog.gpu import CLOCK_STEP_MHZ, Gpu
from tuner.configuration import DEVICE_KNOBS, Value
from tuner.emulator.engine.step import StepParts
from tuner.errors import UsageError, unknown_name


@dataclass(frozen=True, slots=True)
class StepCost:
    """Time and mean power of one step on one GPU, and the clock that it runs at."""

    duration_s: float
    power_w: float
    clock_mhz: float


@dataclass(frozen=True, slots=True)
class PowerModel:
    """One GPU under a power limit and an optional locked SM clock."""

    gpu: Gpu
    limit_w: float
    highest_clock_mhz: int

    @classmethod
    def under(cls, gpu: Gpu, device: Mapping[str, Value]) -> PowerModel:
        """Build from the device knobs; raises `UsageError` for what the GPU would refuse."""
        for name in device:
            if name not in DEVICE_KNOBS:
                raise UsageError(unknown_name("device knob", name, DEVICE_KNOBS))
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
        slower = gpu.max_clock_mhz / clock_mhz
        starved = max(1.0, gpu.full_bandwidth_mhz / clock_mhz)
        shared = 1.0 - gpu.roofline_overlap
        linear_s = _roofline_s(
            parts.linear_compute_s * slower, parts.linear_memory_s * starved, shared
        )
        attention_s = _roofline_s(
            parts.attention_compute_s * slower, parts.attention_memory_s * starved, shared
        )
        expert_s = _roofline_s(
            parts.expert_compute_s * slower, parts.expert_memory_s * starved, shared
        )
        prefill_s = parts.prefill_s * slower
        busy_s = linear_s + expert_s + attention_s + prefill_s + parts.kernel_s
        duration_s = busy_s + parts.host_s - parts.host_overlap * min(busy_s, parts.host_s)
        streaming_s = linear_s + expert_s * parts.expert_balance + attention_s + prefill_s
        compute_s = slower * (
            parts.linear_compute_s
            + parts.expert_compute_s * parts.expert_balance
            + parts.attention_compute_s
            + parts.prefill_s * gpu.prefill_activity
        )
        voltage_squared = self.voltage(clock_mhz) ** 2
        awake_w = gpu.idle_w + (gpu.loaded_idle_w - gpu.idle_w + gpu.active_w) * voltage_squared
        switching = voltage_squared / slower
        core_w = switching * (gpu.stall_w * streaming_s + gpu.compute_w * compute_s)
        core_w /= duration_s
        memory_w = gpu.memory_pj_per_byte * 1e-12 * parts.memory_bytes / duration_s
        return StepCost(duration_s, awake_w + core_w + memory_w, clock_mhz)

    def clock_for(self, parts: StepParts, near_mhz: float | None = None) -> int:
        """Return the highest clock step at which the step's power keeps the limit.

        The lowest clock is the floor, even if it does not keep the limit. The answer is found
        sooner if it is close to `near_mhz`.
        """
        allowed_w = self.limit_w * self.gpu.limit_use
        low, high = self.gpu.min_clock_mhz, self.highest_clock_mhz
        if self.at_clock(parts, high).power_w <= allowed_w:
            return high
        low_step, high_step = 0, (high - low) // CLOCK_STEP_MHZ
        tried = 0 if near_mhz is None else int(near_mhz - low) // CLOCK_STEP_MHZ
        width = 1
        while low_step < tried < high_step:
            if self.at_clock(parts, low + tried * CLOCK_STEP_MHZ).power_w <= allowed_w:
                low_step, tried = tried, tried + width
            else:
                high_step, tried = tried, tried - width
            width *= 4
        while high_step - low_step > 1:
            middle = (low_step + high_step) // 2
            if self.at_clock(parts, low + middle * CLOCK_STEP_MHZ).power_w <= allowed_w:
                low_step = middle
            else:
                high_step = middle
        return low + low_step * CLOCK_STEP_MHZ

    def step(self, parts: StepParts, near_mhz: float | None = None) -> StepCost:
        """Return the cost of a step under the limit and the locked clock; as `clock_for`."""
        return self.at_clock(parts, self.clock_for(parts, near_mhz))

    @property
    def idle_w(self) -> float:
        """Power with the model loaded and nothing to do, at the highest allowed clock."""
        awake_w = self.gpu.loaded_idle_w - self.gpu.idle_w
        return self.gpu.idle_w + awake_w * self.voltage(self.highest_clock_mhz) ** 2


def _roofline_s(compute_s: float, memory_s: float, shared: float) -> float:
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
