"""The meter protocol: power and energy of the GPUs that one server uses.

How to add another vendor's meter (say AMD's):

1. Write `devices/VENDOR/`, with a class that has the methods of `Meter`. Units are watts, joules
   and MHz; convert the library's milliwatts where they are read, and nowhere else.
2. Sample apart from the tuner's event loop, which is busy during a load: NVIDIA's library runs in a
   process of its own (`devices/nvidia/agent.py`) that writes to a ring in shared memory. `read` and
   `timeline` return samples that are there already; they never wait for the driver.
3. Stamp each sample with the instant at which it was taken, on `time.monotonic`. Energy is the
   difference of the GPU's own counter, not a sum over samples of power.
4. Fill a `DeviceTimeline` and let `judge_window` say whether the energy of a window is believed.
   Translate the vendor's reasons for a lower clock to `ClockEvent`.
5. Open it in `devices/open.py`, and add it to `tests/devices/test_meter_contract.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from tuner.devices.device_state import DeviceState
from tuner.devices.energy_window import WindowVerdict
from tuner.records import PowerTimeline, Source


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Power (W) and the running energy counter (J), summed over the GPUs.

    `time_s` is the instant of the sample on `time.monotonic`. `sm_clock_mhz` is the mean over the
    GPUs, None where it is not known of each.
    """

    time_s: float
    power_w: float
    energy_j: float
    sm_clock_mhz: float | None = None


@dataclass(frozen=True, slots=True)
class WindowContext:
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

    def read(self, now_s: float) -> PowerReading | None:
        """Return the newest reading once, for the live view; None until there is a newer one.

        Does not wait. Raises `OperatorNeededError` if a GPU is lost or no longer answers.
        """

    def timeline(self, start_s: float, end_s: float) -> PowerTimeline:
        """Return what was sampled from `start_s` to `end_s` and the sample beside each edge.

        From this the energy of a window is computed. It holds every sample that is still kept,
        however often `read` was called.
        """

    def states(self) -> tuple[DeviceState, ...]:
        """Return everything that is known of each real GPU now; waits for it, to a deadline."""

    def judge(self, start_s: float, end_s: float, context: WindowContext) -> WindowVerdict:
        """Say whether the energy of a window that has just ended can be believed; waits."""

    def close(self) -> None:
        """Let go of the GPUs."""
