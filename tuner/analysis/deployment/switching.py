"""Switching: the time and energy of a start, and of sleep and waking where the server has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

START_S, START_J = "start_s", "start_energy_j"
OFF_W = "off_power_w"
LEVELS = (1, 2)  # of sleep: weights in the host's memory, and weights dropped


def sleep_metrics(level: int) -> tuple[str, str, str, str, str]:
    """Return the names: time and energy to fall asleep, power asleep, time and energy to wake."""
    asleep, awake = f"sleep{level}", f"wake{level}"
    return (
        f"{asleep}_s",
        f"{asleep}_energy_j",
        f"{asleep}_power_w",
        f"{awake}_s",
        f"{awake}_energy_j",
    )


@dataclass(frozen=True, slots=True)
class Sleep:
    """One level of sleep of a server, all its GPUs together."""

    level: int
    sleep_s: float
    sleep_energy_j: float
    power_w: float
    wake_s: float
    wake_energy_j: float


@dataclass(frozen=True, slots=True)
class Switching:
    """What it takes to change what a server's GPUs do; energies are gross, of all its GPUs.

    `off_power_w` is that of the GPUs without any server.
    """

    start_s: float
    start_energy_j: float
    off_power_w: float
    sleeps: tuple[Sleep, ...] = ()

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> Switching:
        """Read the metrics of a probe; a level of sleep that was not measured is absent."""
        sleeps = []
        for level in LEVELS:
            names = sleep_metrics(level)
            if all(name in metrics for name in names):
                sleeps.append(Sleep(level, *(metrics[name] for name in names)))
        return cls(metrics[START_S], metrics[START_J], metrics[OFF_W], tuple(sleeps))

    def metrics(self) -> dict[str, float]:
        """Return the metrics of a probe; `of` reads them back."""
        found = {START_S: self.start_s, START_J: self.start_energy_j, OFF_W: self.off_power_w}
        for one in self.sleeps:
            values = one.sleep_s, one.sleep_energy_j, one.power_w, one.wake_s, one.wake_energy_j
            found |= dict(zip(sleep_metrics(one.level), values, strict=True))
        return found
