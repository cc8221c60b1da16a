"""GPUs that exist only in software, for servers on machines without NVML."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.devices.device_state import DeviceState
from tuner.devices.energy_window import WindowVerdict
from tuner.devices.meter import Activity, PowerReading, Surroundings
from tuner.emulator.device_file import UPDATE_S, Device
from tuner.emulator.virtual import steady_power_w
from tuner.records import Source

_LATE_S = 0.05


class _NothingToJudge:
    """A GPU in software: nobody else is on it, and nothing can be wrong with its counter."""

    source = Source.EMULATED
    driver: str | None = None

    def states(self) -> tuple[DeviceState, ...]:
        """There is no real GPU."""
        return ()

    def judge(self, start_s: float, end_s: float, surroundings: Surroundings) -> WindowVerdict:
        """Believe it."""
        return WindowVerdict(valid=True, reasons=(), flags=(), energy_j=None, integral_j=None)

    def close(self) -> None:
        """Nothing is held."""


class EmulatedGpuMeter(_NothingToJudge):
    """GPUs of an emulated machine, on which an emulated server runs."""

    def __init__(self, gpu: str, devices: Sequence[Device]) -> None:
        self.gpu = gpu
        self._devices = tuple(devices)

    def read(self, now_s: float, activity: Activity | None) -> PowerReading | None:
        """Return what the GPUs drew and had used a moment ago: a late step is written by now."""
        at_s = now_s - _LATE_S
        return PowerReading(
            power_w=sum(device.mean_power_w(at_s, UPDATE_S) for device in self._devices),
            energy_j=sum(device.energy_j(at_s) for device in self._devices),
            time_s=at_s,
            sm_clock_mhz=sum(d.clock_mhz for d in self._devices) / len(self._devices),
        )


class EmulatorServerMeter(_NothingToJudge):
    """The GPUs of an emulated server somewhere else, which reports their counter itself."""

    def __init__(self, gpu: str) -> None:
        self.gpu = gpu
        self._last: Activity | None = None

    def read(self, now_s: float, activity: Activity | None) -> PowerReading | None:
        """Pass on a new report once: the counter of an old one would seem to stand still."""
        if activity is self._last or activity is None:
            return None
        self._last = activity
        if activity.energy_j is None or activity.power_w is None:
            return None
        return PowerReading(
            activity.power_w, activity.energy_j, activity.time_s, activity.sm_clock_mhz
        )


class ActivityMeter(_NothingToJudge):
    """A GPU that would do what a real server reports it is doing.

    Rates of prompt and output tokens between two reports give the power of `gpu` running `model`;
    power is held until the next report and integrated into a counter. Before the second report the
    server counts as idle: reading begins before the load.
    """

    def __init__(self, model: ModelShape, gpu: Gpu, mean_context_tokens: float) -> None:
        self.gpu = gpu.name
        self._model = model
        self._gpu = gpu
        self._mean_context_tokens = mean_context_tokens
        self._energy_j = 0.0
        self._power_w: float | None = None
        self._read_s: float | None = None
        self._report: Activity | None = None

    def read(self, now_s: float, activity: Activity | None) -> PowerReading | None:
        """Advance the counter to `now_s` at the power of the newest report."""
        if self._power_w is not None and self._read_s is not None:
            self._energy_j += self._power_w * (now_s - self._read_s)
        self._read_s = now_s
        if activity is not None and activity is not self._report:
            self._take(activity)
        if self._power_w is None:
            return None
        return PowerReading(power_w=self._power_w, energy_j=self._energy_j)

    def _take(self, activity: Activity) -> None:
        generation_tok_s = prompt_tok_s = 0.0
        before = self._report
        if before is not None:
            span_s = activity.time_s - before.time_s
            generation_tok_s = (activity.generation_tokens - before.generation_tokens) / span_s
            prompt_tok_s = (activity.prompt_tokens - before.prompt_tokens) / span_s
        self._power_w = steady_power_w(
            self._model,
            self._gpu,
            generation_tok_s=generation_tok_s,
            prompt_tok_s=prompt_tok_s,
            running=activity.running,
            mean_context_tokens=self._mean_context_tokens,
        )
        self._report = activity
