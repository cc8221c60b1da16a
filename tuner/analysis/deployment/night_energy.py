"""Energy that a study itself used: its windows, its launches and what lies between."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.analysis.deployment.checks import IDLE_POWER
from tuner.store.rows import RepeatRow, TrialRow


def night_energy_j(rows: Sequence[TrialRow | RepeatRow]) -> float | None:
    """Return about how much energy the evaluations of a study used, J; None if unknown.

    Each used the mean power of its window for as long as it took. Launches, and evaluations that
    measured no power, used the idle power; where that was not measured, half of the least power.
    """
    powers_w = [w for row in rows if (w := _power_w(row, "mean_power_w")) is not None]
    if not powers_w:
        return None
    idle_w = [w for row in rows if (w := _power_w(row, IDLE_POWER)) is not None]
    waiting_w = idle_w[-1] if idle_w else min(powers_w) / 2.0
    total_j = 0.0
    for row in rows:
        if row.timing is None:
            continue
        launch_s = row.timing.launch_s or 0.0
        power_w = _power_w(row, "mean_power_w")
        busy_w = waiting_w if power_w is None else power_w
        total_j += launch_s * waiting_w + max(row.timing.elapsed_s - launch_s, 0.0) * busy_w
    return total_j


def _power_w(row: TrialRow | RepeatRow, name: str) -> float | None:
    return None if row.measurement is None else row.measurement.metrics.get(name)
