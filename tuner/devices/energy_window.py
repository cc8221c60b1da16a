"""Validity of a window's energy: whether it can be believed.

Pure functions over what was sampled in the window and the GPUs' states before and after it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.devices.device_state import ClockEvent, DeviceState
from tuner.devices.timeline import DeviceTimeline
from tuner.records import FloatArray

PLAUSIBLE_FACTOR = 1.3  # of the highest limit: short peaks go above it
APART = 0.05  # of the larger one, between counter and integrated power
MAX_GAP_S = 1.0
LIMIT_TOLERANCE_W = 0.5
BINDING_SHARE = 0.95  # of the limit: power that stays below it was not held back by it
_SLOWDOWNS = {
    ClockEvent.HARDWARE_SLOWDOWN: "hardware slowdown",
    ClockEvent.THERMAL_SOFTWARE: "thermal slowdown (software)",
    ClockEvent.THERMAL_HARDWARE: "thermal slowdown (hardware)",
    ClockEvent.POWER_BRAKE: "power brake (hardware)",
}

COUNTER_APART = "counter_and_integral_apart"
LIMIT_NOT_BINDING = "limit_not_binding"
SLOWDOWN_UNKNOWN = "slowdown_unknown"
PROCESSES_UNKNOWN = "processes_unknown"
MAX_LIMIT_UNKNOWN = "max_limit_unknown"
INTEGRAL_UNKNOWN = "integral_unknown"
_FLAG_WORDS = {
    COUNTER_APART: "the energy counter and integrated power are more than 5 % apart",
    LIMIT_NOT_BINDING: "limit_not_binding: power stayed below the limit",
    SLOWDOWN_UNKNOWN: "the GPU does not say whether it was slowed down",
    PROCESSES_UNKNOWN: "the GPU does not say who else was using it",
    MAX_LIMIT_UNKNOWN: "the GPU does not say its highest power limit",
    INTEGRAL_UNKNOWN: "power could not be integrated beside the energy counter",
}


@dataclass(frozen=True, slots=True)
class WindowVerdict:
    """Valid, or the reasons why not; `flags` are what to know of a window that may be valid.

    `energy_j` is the difference of the counters, `integral_j` that of sampled power, both summed
    over the GPUs; None where they cannot be known.
    """

    valid: bool
    reasons: tuple[str, ...]
    flags: tuple[str, ...]
    energy_j: float | None
    integral_j: float | None


@dataclass(frozen=True, slots=True, eq=False)
class EnergyWindow:
    """What is judged. States are in the order of the timeline's GPUs.

    `own_pids` are the processes of the server, `power_limit_w` is the limit that was set, None if
    it was left alone.
    """

    start_s: float
    end_s: float
    timeline: DeviceTimeline
    before: tuple[DeviceState, ...]
    after: tuple[DeviceState, ...]
    own_pids: Collection[int]
    power_limit_w: float | None = None


def judge_window(window: EnergyWindow) -> WindowVerdict:
    """Apply every check; see the functions below for the formulas."""
    found = _Findings()
    part = window.timeline.part(window.start_s, window.end_s)
    energy_j = integral_j = None
    if _covers(window, part, found):
        energy_j = _counter_j(window, part, found)
        integral_j = _integral_j(window, part, found)
        if energy_j is not None:
            _check_plausible(window, energy_j, found)
        if energy_j is not None and integral_j is not None and apart(energy_j, integral_j):
            found.flags.append(COUNTER_APART)
        _check_slowdown(part, found)
        if not _limit_bound(window, part):
            found.flags.append(LIMIT_NOT_BINDING)
    _check_limits(window, found)
    _check_processes(window, found)
    return WindowVerdict(
        valid=not found.reasons,
        reasons=tuple(found.reasons),
        flags=tuple(found.flags),
        energy_j=energy_j,
        integral_j=integral_j,
    )


class _Findings:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.flags: list[str] = []


def apart(counter_j: float, integral_j: float) -> bool:
    """Say whether the two differ by more than 5 % of the larger."""
    return abs(counter_j - integral_j) > APART * max(abs(counter_j), abs(integral_j))


def held_integral(times_s: FloatArray, values: FloatArray, start_s: float, end_s: float) -> float:
    """Integrate from `start_s` to `end_s`: linear between samples, the edge values held."""
    inside = (times_s > start_s) & (times_s < end_s)
    grid = np.concatenate(([start_s], times_s[inside], [end_s]))
    at = np.interp(grid, times_s, values)
    return float(((at[1:] + at[:-1]) / 2 * np.diff(grid)).sum())


def _covers(window: EnergyWindow, part: DeviceTimeline, found: _Findings) -> bool:
    times_s = part.times_s
    if times_s.size < 2 or times_s[0] > window.start_s or times_s[-1] < window.end_s:
        found.reasons.append("the power samples do not cover the window")
        return False
    if (gap_s := float(np.diff(times_s).max())) > MAX_GAP_S:
        found.reasons.append(f"the power samples have a gap of {gap_s:.1f} s")
    return True


def _counter_j(window: EnergyWindow, part: DeviceTimeline, found: _Findings) -> float | None:
    """Counters at the end - counters at the start, linear between samples."""
    if np.isnan(part.energy_j).any():
        found.reasons.append("a sample of the energy counter is missing")
        return None
    if (np.diff(part.energy_j, axis=0) < 0).any():
        found.reasons.append("the energy counter went back (driver reload?)")
        return None
    edges_s = [window.start_s, window.end_s]
    at = np.array([np.interp(edges_s, part.times_s, one) for one in part.energy_j.T])
    return float((at[:, 1] - at[:, 0]).sum())


def _integral_j(window: EnergyWindow, part: DeviceTimeline, found: _Findings) -> float | None:
    if np.isnan(part.power_w).any():
        found.flags.append(INTEGRAL_UNKNOWN)
        return None
    total_w = part.power_w.sum(axis=1)
    return held_integral(part.times_s, total_w, window.start_s, window.end_s)


def _check_plausible(window: EnergyWindow, energy_j: float, found: _Findings) -> None:
    length_s = window.end_s - window.start_s
    if energy_j <= 0:
        found.reasons.append(f"the energy counter did not move in {length_s:.1f} s")
    limits_w = [state.max_power_limit_w for state in window.before]
    known_w = [limit_w for limit_w in limits_w if limit_w is not None]
    if len(known_w) < len(limits_w):
        found.flags.append(MAX_LIMIT_UNKNOWN)
        return
    most_j = PLAUSIBLE_FACTOR * sum(known_w) * length_s
    if energy_j > most_j:
        found.reasons.append(
            f"the energy counter moved by {energy_j:.0f} J in {length_s:.1f} s, more than the "
            f"{most_j:.0f} J that these GPUs can draw"
        )


def _check_slowdown(part: DeviceTimeline, found: _Findings) -> None:
    if np.isnan(part.event_reasons).any():
        found.flags.append(SLOWDOWN_UNKNOWN)
    for bit, meaning in _SLOWDOWNS.items():
        if (share := float(_has(part, bit).any(axis=1).mean())) > 0:
            found.reasons.append(f"{meaning} in {100 * share:.0f} % of the window's samples")


def _has(part: DeviceTimeline, bit: int) -> NDArray[np.bool_]:
    bits = np.nan_to_num(part.event_reasons).astype(np.int64)
    return np.bitwise_and(bits, bit).astype(np.bool_)


def _limit_bound(window: EnergyWindow, part: DeviceTimeline) -> bool:
    """Say whether a limit that was set held any GPU back; True if none was set.

    It did not if no sample shows a power cap and power stayed clearly below the limit.
    """
    if window.power_limit_w is None or _has(part, ClockEvent.POWER_CAP).any():
        return True
    known_w = part.power_w[~np.isnan(part.power_w)]
    return bool((known_w >= BINDING_SHARE * window.power_limit_w).any())


def _check_limits(window: EnergyWindow, found: _Findings) -> None:
    """The enforced limit is what was set, and the same before and after."""
    for before, after in zip(window.before, window.after, strict=True):
        was_w, is_w = before.enforced_power_limit_w, after.enforced_power_limit_w
        wanted_w = was_w if window.power_limit_w is None else window.power_limit_w
        if was_w is None and is_w is None and wanted_w is None:
            continue
        if not (_equal(was_w, wanted_w) and _equal(is_w, wanted_w)):
            found.reasons.append(
                f"the enforced power limit of {before.uuid} was {_watts(was_w)} before and "
                f"{_watts(is_w)} after the window instead of {_watts(wanted_w)}"
            )


def _check_processes(window: EnergyWindow, found: _Findings) -> None:
    """Nobody else computes on these GPUs."""
    own = set(window.own_pids)
    sides: Sequence[tuple[str, tuple[DeviceState, ...]]] = (
        ("before", window.before),
        ("after", window.after),
    )
    if any(state.pids is None for _, states in sides for state in states):
        found.flags.append(PROCESSES_UNKNOWN)
    for side, states in sides:
        for state in states:
            if foreign := sorted(set(state.pids or ()) - own):
                pids = ", ".join(map(str, foreign))
                found.reasons.append(f"other processes on {state.uuid} {side} the window: {pids}")


def _equal(found_w: float | None, wanted_w: float | None) -> bool:
    if found_w is None or wanted_w is None:
        return False
    return abs(found_w - wanted_w) <= LIMIT_TOLERANCE_W


def _watts(value_w: float | None) -> str:
    return "unknown" if value_w is None else f"{value_w:g} W"


def flag_in_words(flag: str) -> str:
    """Return what a flag of a verdict says, for people."""
    return _FLAG_WORDS.get(flag, flag)
