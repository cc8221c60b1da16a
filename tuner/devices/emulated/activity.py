"""Server activity: what drives the meters of GPUs that exist only in software."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Activity:
    """What a server reports it is doing: running requests, and token counters since its start.

    A server of images and videos counts no tokens. `time_s` is when, on `time.monotonic`.
    `energy_j`, `power_w` and `sm_clock_mhz` are known only to the emulator's server, which has its
    GPU inside.
    """

    time_s: float
    running: float
    prompt_tokens: float | None
    generation_tokens: float | None
    energy_j: float | None = None
    power_w: float | None = None
    sm_clock_mhz: float | None = None


@runtime_checkable
class ActivityDriven(Protocol):
    """A meter without a sensor: it receives the server's reports.

    `activity_period_s` is the period of these reports.
    """

    activity_period_s: float

    def follow(self, activity: Activity) -> None:
        """Take the server's newest report."""
