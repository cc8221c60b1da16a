"""Device timeline: the samples of each GPU while a load ran on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuner.records import FloatArray, PowerTimeline, Source


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTimeline:
    """Samples over time: `times_s` has one entry per row, the others a column per GPU.

    NaN is unknown. `event_reasons` are bits of `ClockEvent` and others, kept as numbers.
    """

    uuids: tuple[str, ...]
    times_s: FloatArray
    energy_j: FloatArray
    power_w: FloatArray
    sm_clock_mhz: FloatArray
    temperature_c: FloatArray
    event_reasons: FloatArray

    def part(self, start_s: float, end_s: float) -> DeviceTimeline:
        """Return the samples of a window, and the one beside each edge of it."""
        first = max(0, int(np.searchsorted(self.times_s, start_s, side="right")) - 1)
        last = int(np.searchsorted(self.times_s, end_s, side="left")) + 1
        return DeviceTimeline(
            self.uuids,
            self.times_s[first:last],
            self.energy_j[first:last],
            self.power_w[first:last],
            self.sm_clock_mhz[first:last],
            self.temperature_c[first:last],
            self.event_reasons[first:last],
        )

    def summed(self, source: Source) -> PowerTimeline:
        """Return power and energy summed over the GPUs, and the mean of their clocks.

        A sample in which the power or the energy of a GPU is missing is left out.
        """
        energy_j, power_w = self.energy_j.sum(axis=1), self.power_w.sum(axis=1)
        is_whole = ~(np.isnan(energy_j) | np.isnan(power_w))
        clock_mhz = self.sm_clock_mhz.mean(axis=1)[is_whole]
        return PowerTimeline(
            self.times_s[is_whole],
            power_w[is_whole],
            energy_j[is_whole],
            source,
            None if np.isnan(clock_mhz).all() else clock_mhz,
        )
