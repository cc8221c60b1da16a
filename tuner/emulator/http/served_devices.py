"""GPUs of a served engine in the device file: it writes their state and obeys their settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tuner.catalog.gpu import CLOCK_STEP_MHZ, Gpu
from tuner.configuration import Value
from tuner.emulator.device_file import Device, DeviceBusyError, DeviceFile, Facts, Settings
from tuner.emulator.engine.engine import Engine
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.refusal import LaunchRefusedError
from tuner.errors import UsageError

GOVERNOR_LAG_S = 0.1  # from a setting to the first step under it: an assumption
_GIB = 2**30


def create_devices(path: Path, gpu: Gpu, count: int) -> DeviceFile:
    """Write a file of `count` GPUs. Raises `OSError`."""
    return DeviceFile.create(path, _facts(gpu), count)


def create_unnamed_devices(gpu: Gpu, count: int) -> DeviceFile:
    """Write a file of `count` GPUs that has no name. Raises `OSError`."""
    return DeviceFile.create_unnamed(_facts(gpu), count)


def open_devices(path: Path, gpu: Gpu) -> DeviceFile:
    """Map the file of this machine's GPUs. Raises `UsageError` if it is none, or of other GPUs."""
    try:
        file = DeviceFile(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"the emulated GPUs cannot be used: {error}") from None
    if file.devices[0].facts != _facts(gpu):
        raise UsageError(f"'{path}' holds GPUs that are not the {gpu.name} to be emulated")
    return file


def _facts(gpu: Gpu) -> Facts:
    thermal = gpu.thermal
    warmth = (
        {}
        if thermal is None
        else {
            "coolant_c": thermal.coolant_c + thermal.warmer_k,
            "kelvin_per_w": thermal.kelvin_per_w,
        }
    )
    return Facts(
        name=gpu.name,
        default_limit_w=gpu.default_limit_w,
        min_limit_w=gpu.min_limit_w,
        max_limit_w=gpu.max_limit_w,
        min_clock_mhz=gpu.min_clock_mhz,
        max_clock_mhz=gpu.max_clock_mhz,
        clock_step_mhz=CLOCK_STEP_MHZ,
        memory_bytes=round(gpu.memory_gib * _GIB),
        idle_w=gpu.idle_w,
        **warmth,
    )


class ServedDevices:
    """The GPUs that one engine runs on. They go in step, so the lowest of their settings counts."""

    def __init__(self, gpu: Gpu, devices: Sequence[Device]) -> None:
        self._gpu = gpu
        self._devices = tuple(devices)
        self._asked = self._settings()
        self._due_s: float | None = None
        self._origin_s = 0.0
        self._clock_s = 0.0
        self._before = [(0.0, 0.0)] * len(self._devices)  # energy and busy time at the origin
        self._busy_s = 0.0

    def attach(self, engine: Engine, origin_s: float) -> None:
        """Take the GPUs for an engine whose clock begins at `origin_s` of `time.monotonic`.

        Raises `LaunchRefusedError` if another server is on one of them.
        """
        self._take(engine.launch.gpu_memory_utilization or 1.0)
        self._origin_s = origin_s
        self._before = [(d.energy_j(origin_s), d.busy_s(origin_s)) for d in self._devices]
        self._asked = self._settings()
        self._obey(engine)
        self.publish(engine, busy=False)

    def _take(self, utilization: float) -> None:
        total_gib = self._gpu.memory_gib
        for index, device in enumerate(self._devices):
            free_gib = total_gib - device.memory_used_bytes / _GIB
            try:
                device.take(os.getpid(), round(utilization * total_gib * _GIB))
            except DeviceBusyError:
                raise LaunchRefusedError(
                    f"Free memory on device cuda:{index} ({free_gib:.2f}/{total_gib:.2f} GiB) on"
                    " startup is less than desired GPU memory utilization"
                    f" ({utilization:g}, {utilization * total_gib:.2f} GiB). Decrease GPU memory"
                    " utilization or reduce GPU memory used by other processes."
                ) from None

    def before_step(self, engine: Engine) -> None:
        """Bring the engine under what the GPUs are set to, as soon as the governor is."""
        if (asked := self._settings()) != self._asked:
            self._asked = asked
            self._due_s = engine.clock_s + GOVERNOR_LAG_S
        if self._due_s is not None and engine.clock_s >= self._due_s:
            self._due_s = None
            self._obey(engine)

    def publish(self, engine: Engine, *, busy: bool) -> None:
        """Write the engine's last step, or that it had nothing to do, up to its clock."""
        share = 1 / len(self._devices)
        self._busy_s += engine.clock_s - self._clock_s if busy else 0.0
        self._clock_s = engine.clock_s
        clock_mhz = engine.clock_mhz if busy else engine.idle_clock_mhz
        for device, (energy_j, busy_s) in zip(self._devices, self._before, strict=True):
            device.show(round(clock_mhz), held_back=clock_mhz < engine.idle_clock_mhz)
            device.add(
                self._origin_s + engine.clock_s,
                energy_j + share * engine.energy_j,
                busy_s + self._busy_s,
                share * engine.idle_w,
            )

    def detach(self) -> None:
        """Leave the GPUs."""
        for device in self._devices:
            device.leave()

    def _settings(self) -> Settings:
        each = [device.settings for device in self._devices]
        locked_mhz = [one.sm_clock_mhz for one in each if one.sm_clock_mhz is not None]
        return Settings(min(one.power_limit_w for one in each), min(locked_mhz, default=None))

    def _obey(self, engine: Engine) -> None:
        knobs: dict[str, Value] = {"power_limit_w": self._asked.power_limit_w}
        if self._asked.sm_clock_mhz is not None:
            knobs["sm_clock_mhz"] = self._asked.sm_clock_mhz
        engine.set_power(PowerModel.under(self._gpu, knobs))
