"""Emulated GPUs of one run: its emulated servers run on them, its device knobs change them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tuner.catalog.gpu import Gpu
from tuner.configuration import Configuration
from tuner.devices.device_state import DeviceState
from tuner.devices.emulated.meters import EmulatedGpuMeter
from tuner.emulator.device_file import DeviceFile, Settings
from tuner.emulator.http.served_devices import create_devices
from tuner.errors import PreflightError
from tuner.host.files.private import private_folder
from tuner.servers.registry import flag_rules


class EmulatedMachine:
    """As many GPUs as such a machine has, in a file that only this run's servers use.

    There is nothing to restore: the next run creates its own GPUs.
    """

    def __init__(self, gpu: Gpu, path: Path) -> None:
        self.path = path
        self._gpu = gpu

    def meter(self, configuration: Configuration) -> EmulatedGpuMeter:
        """Return the meter of the GPUs that a server uses. Raises as `open`."""
        used = flag_rules().gpus_used(configuration)
        used = min(used, len(self._file.devices))  # with more, it does not start
        return EmulatedGpuMeter(self._gpu.name, self._file.devices[:used])

    def open(self, _: Sequence[DeviceState]) -> None:
        """Create the GPUs. Raises `PreflightError` if their file cannot be written."""
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
        self.path.unlink(missing_ok=True)

    @cached_property
    def _file(self) -> DeviceFile:
        try:
            private_folder(self.path.parent)
            return create_devices(self.path, self._gpu, self._gpu.max_gpus)
        except OSError as error:
            raise PreflightError(f"the emulated GPUs cannot be written: {error}") from error
