"""Emulated meters: GPUs that exist only in software, for servers on machines without one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

import numpy as np

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.devices.device_state import DeviceState
from tuner.devices.emulated.activity import Activity
from tuner.devices.energy_window import WindowVerdict
from tuner.devices.meter import PowerReading, WindowContext
from tuner.emulator.device_file import UPDATE_S, Device
from tuner.emulator.virtual import steady_power_w
from tuner.records import PowerTimeline, Source

_LATE_S = 0.05
_KEPT_READINGS = 1 << 17  # 3.6 h at 10 Hz, as many as of a real GPU


class _EmulatedMeter(ABC):
    """A GPU in software: it is sampled by being read, and its counter is always right."""

    source = Source.EMULATED
    driver: str | None = None

    def __init__(self, gpu: str) -> None:
        self.gpu = gpu
        self._kept: deque[PowerReading] = deque(maxlen=_KEPT_READINGS)

    @abstractmethod
    def _sample(self, now_s: float) -> PowerReading | None:
        """Return a new reading, or None while there is none."""

    def read(self, now_s: float) -> PowerReading | None:
        """Take a sample and keep it."""
        reading = self._sample(now_s)
        if reading is not None:
            self._kept.append(reading)
        return reading

    def timeline(self, start_s: float, end_s: float) -> PowerTimeline:
        """Return the readings that were kept from `start_s` to `end_s` and one beside each edge."""
        rows = []
        for r in reversed(self._kept):  # a window is among the newest
            rows.append((r.time_s, r.power_w, r.energy_j, _or_nan(r.sm_clock_mhz)))
            if r.time_s <= start_s:
                break
        table = np.array(rows[::-1], dtype=np.float64).reshape(-1, 4)
        first = max(0, int(np.searchsorted(table[:, 0], start_s, side="right")) - 1)
        last = int(np.searchsorted(table[:, 0], end_s, side="left")) + 1
        times_s, power_w, energy_j, clock_mhz = table[first:last].T
        is_known = not np.isnan(clock_mhz).all()
        return PowerTimeline(
            times_s, power_w, energy_j, self.source, clock_mhz if is_known else None
        )

    def states(self) -> tuple[DeviceState, ...]:
        """There is no real GPU."""
        return ()

    def judge(self, start_s: float, end_s: float, context: WindowContext) -> WindowVerdict:
        """Believe it."""
        return WindowVerdict(valid=True, reasons=(), flags=(), energy_j=None, integral_j=None)

    def close(self) -> None:
        """Forget the readings."""
        self._kept.clear()


class EmulatedGpuMeter(_EmulatedMeter):
    """GPUs of an emulated machine, on which an emulated server runs."""

    def __init__(self, gpu: str, devices: Sequence[Device]) -> None:
        super().__init__(gpu)
        self._devices = tuple(devices)

    def _sample(self, now_s: float) -> PowerReading | None:
        """Return what the GPUs drew and had used a moment ago: a late step is written by now."""
        at_s = now_s - _LATE_S
        return PowerReading(
            power_w=sum(device.mean_power_w(at_s, UPDATE_S) for device in self._devices),
            energy_j=sum(device.energy_j(at_s) for device in self._devices),
            time_s=at_s,
            sm_clock_mhz=sum(d.clock_mhz for d in self._devices) / len(self._devices),
        )


class EmulatorServerMeter(_EmulatedMeter):
    """The GPUs of an emulated server somewhere else, which reports their counter itself."""

    activity_period_s = 0.1  # each report is a reading, and an edge of a window lies between two

    def __init__(self, gpu: str) -> None:
        super().__init__(gpu)
        self._report: Activity | None = None

    def follow(self, activity: Activity) -> None:
        """Take the server's newest report."""
        self._report = activity

    def _sample(self, now_s: float) -> PowerReading | None:
        """Pass on a new report once: the counter of an old one would seem to stand still."""
        report, self._report = self._report, None
        if report is None or report.energy_j is None or report.power_w is None:
            return None
        return PowerReading(report.time_s, report.power_w, report.energy_j, report.sm_clock_mhz)


class ActivityMeter(_EmulatedMeter):
    """A GPU that would do what a real server reports it is doing.

    Rates of prompt and output tokens between two reports give the power of `gpu` running `model`;
    power is held until the next report and integrated into a counter. Before the second report the
    server counts as idle: reading begins before the load.
    """

    activity_period_s = 0.25

    def __init__(self, model: ModelShape, gpu: Gpu, mean_context_tokens: float) -> None:
        super().__init__(gpu.name)
        self._model = model
        self._gpu = gpu
        self._mean_context_tokens = mean_context_tokens
        self._energy_j = 0.0
        self._power_w: float | None = None
        self._read_s: float | None = None
        self._newest: Activity | None = None
        self._taken: Activity | None = None

    def follow(self, activity: Activity) -> None:
        """Take the server's newest report, if it counts tokens."""
        if activity.prompt_tokens is not None and activity.generation_tokens is not None:
            self._newest = activity

    def _sample(self, now_s: float) -> PowerReading | None:
        """Advance the counter to `now_s` at the power of the newest report."""
        if self._power_w is not None and self._read_s is not None:
            self._energy_j += self._power_w * (now_s - self._read_s)
        self._read_s = now_s
        if self._newest is not None and self._newest is not self._taken:
            self._take(self._newest)
        if self._power_w is None:
            return None
        return PowerReading(now_s, power_w=self._power_w, energy_j=self._energy_j)

    def _take(self, activity: Activity) -> None:
        generation_tok_s = prompt_tok_s = 0.0
        before = self._taken
        if before is not None:
            span_s = activity.time_s - before.time_s
            generation_tok_s = _grown(before.generation_tokens, activity.generation_tokens) / span_s
            prompt_tok_s = _grown(before.prompt_tokens, activity.prompt_tokens) / span_s
        self._power_w = steady_power_w(
            self._model,
            self._gpu,
            generation_tok_s=generation_tok_s,
            prompt_tok_s=prompt_tok_s,
            running=activity.running,
            mean_context_tokens=self._mean_context_tokens,
        )
        self._taken = activity


class BusyMeter(_EmulatedMeter):
    """A GPU at its power limit while a server of images or videos has requests, else idle.

    Nothing is known of the model: energy then follows the time that the server is busy.
    """

    activity_period_s = 0.1

    def __init__(self, gpu: Gpu) -> None:
        super().__init__(gpu.name)
        self._gpu = gpu
        self._energy_j = 0.0
        self._power_w = gpu.idle_w
        self._read_s: float | None = None

    def follow(self, activity: Activity) -> None:
        """Take the server's newest report."""
        self._power_w = self._gpu.default_limit_w if activity.running else self._gpu.idle_w

    def _sample(self, now_s: float) -> PowerReading:
        """Advance the counter to `now_s` at the power of the newest report."""
        if self._read_s is not None:
            self._energy_j += self._power_w * (now_s - self._read_s)
        self._read_s = now_s
        return PowerReading(now_s, power_w=self._power_w, energy_j=self._energy_j)


def _grown(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else after - before


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
