"""The one protocol behind which a real GPU and an emulated one sit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from tuner.devices.device_state import DeviceState
from tuner.devices.energy_window import WindowVerdict
from tuner.records import Source


@dataclass(frozen=True, slots=True)
class Activity:
    """What a server reports it is doing: running requests, and token counters since its start.

    `time_s` is when, on `time.monotonic`. `energy_j` and `power_w` are known only to the emulator's
    server, which has its GPU inside, and so is `sm_clock_mhz`.
    """

    time_s: float
    running: float
    prompt_tokens: float
    generation_tokens: float
    energy_j: float | None = None
    power_w: float | None = None
    sm_clock_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Power (W) and the running energy counter (J), summed over the GPUs.

    `time_s` is the instant of the sample on `time.monotonic`, where it was not taken just now.
    `sm_clock_mhz` is the mean over the GPUs, None where it is not known of each.
    """

    power_w: float
    energy_j: float
    time_s: float | None = None
    sm_clock_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a window's energy is judged by besides the samples.

    `own_pids` are the processes of the server, `power_limit_w` is the limit that was set, None if
    it was left alone.
    """

    before: tuple[DeviceState, ...]
    own_pids: Collection[int]
    power_limit_w: float | None


class Meter(Protocol):
    """Reads the power and energy of the GPUs that one server uses."""

    @property
    def gpu(self) -> str:
        """What is measured, e.g. `2 x NVIDIA H100 80GB HBM3`."""

    @property
    def driver(self) -> str | None:
        """Driver version, or None where there is no driver."""

    @property
    def source(self) -> Source:
        """Whether readings are measured or emulated."""

    def read(self, now_s: float, activity: Activity | None) -> PowerReading | None:
        """Return a reading, or None while there is nothing to read yet.

        `activity` is the newest report of the server; a real GPU does not need it.
        Raises `OperatorNeededError` if the GPU is lost.
        """

    def states(self) -> tuple[DeviceState, ...]:
        """Return everything that is known of each real GPU now; waits for it, to a deadline."""

    def judge(self, start_s: float, end_s: float, surroundings: Surroundings) -> WindowVerdict:
        """Say whether the energy of a window that has just ended can be believed; waits."""

    def close(self) -> None:
        """Let go of the GPUs."""
