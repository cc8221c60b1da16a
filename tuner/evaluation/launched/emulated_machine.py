"""Emulated GPUs of one run: its emulated servers run on them, its device knobs change them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuner.catalog.gpu import Gpu
from tuner.configuration import Configuration
from tuner.devices.device_state import DeviceState
from tuner.devices.emulated.meters import EmulatedGpuMeter
from tuner.emulator.device_file import Settings
from tuner.emulator.http.served_devices import create_unnamed_devices
from tuner.servers.registry import flag_rules


class EmulatedMachine:
    """As many GPUs as such a machine has, which only this run's servers use.

    There is nothing to restore: the next run creates its own GPUs. They are in no folder, so that
    nobody can remove them under a running server.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._file = create_unnamed_devices(gpu, gpu.max_gpus)

    @property
    def path(self) -> Path:
        """Where servers that this process starts find the GPUs."""
        return self._file.path

    def meter(self, configuration: Configuration) -> EmulatedGpuMeter:
        """Return the meter of the GPUs that a server uses."""
        used = flag_rules().gpus_used(configuration)
        used = min(used, len(self._file.devices))  # with more, it does not start
        return EmulatedGpuMeter(self._gpu.name, self._file.devices[:used])

    def open(self, _: Sequence[DeviceState]) -> None:
        """Set the GPUs to their defaults."""
        self.apply(Configuration())

    def apply(self, configuration: Configuration) -> float | None:
        """Set the configuration's device knobs; return the power limit in force, W."""
        device = configuration.device
        limit_w = float(device.get("power_limit_w", self._gpu.default_limit_w))
        sm_clock_mhz = device.get("sm_clock_mhz")
        settings = Settings(limit_w, None if sm_clock_mhz is None else int(sm_clock_mhz))
        for one in self._file.devices:
            one.set(settings)
        return limit_w

    def close(self) -> None:
        """Remove the GPUs."""
        self._file.close()
