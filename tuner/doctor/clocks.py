"""Clock checks: durations use the monotonic clock, the times in reports the wall clock."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass

from tuner.doctor.host import Host
from tuner.host.finding import Finding, ok, warning

_LOOK_S = 0.2
_STEP_S = 0.05  # over this short time, slewed clocks stay together within a microsecond
_SUSPENDED_S = 60.0
_COARSE_S = 1e-5
_GOOD_SOURCES = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
_SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_STA_UNSYNC = 0x40
_TIMEX_BYTES = 512  # struct timex has 208 on 64-bit Linux
_STATUS_OFFSET = 40


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """The result of two readings of the clocks; None is unknown.

    `step_s` is how far wall and monotonic clock moved apart between them, `suspended_s` how long
    the machine has slept since it was started.
    """

    step_s: float
    resolution_s: float
    suspended_s: float
    is_synchronised: bool | None


def clock_facts() -> ClockFacts:
    """Read the clocks twice, a moment apart."""
    wall_s, monotonic_s = time.time(), time.monotonic()
    time.sleep(_LOOK_S)
    step_s = (time.time() - wall_s) - (time.monotonic() - monotonic_s)
    asleep_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    resolution_s = time.get_clock_info("monotonic").resolution
    return ClockFacts(step_s, resolution_s, asleep_s, _is_synchronised())


def check_clocks(host: Host, facts: ClockFacts) -> list[Finding]:
    """Return the findings on the clocks."""
    found = []
    if abs(facts.step_s) > _STEP_S:
        found.append(
            warning(
                "clock",
                f"the wall clock jumped by {facts.step_s:+.2f} s during the check; durations "
                "are not affected, the times in reports are",
                "timedatectl status",
            )
        )
    if facts.is_synchronised is False:
        found.append(
            warning(
                "clock",
                "the wall clock is not kept by NTP, so the times in reports may be off",
                "sudo timedatectl set-ntp true",
            )
        )
    if facts.suspended_s > _SUSPENDED_S:
        found.append(
            warning(
                "clock",
                f"this machine slept for {facts.suspended_s / 60:.0f} min since it was started, "
                "and a run must not",
                "systemd-inhibit --what=sleep tuner run ...",
            )
        )
    source = host.text(_SOURCE)
    if facts.resolution_s > _COARSE_S or (source is not None and source not in _GOOD_SOURCES):
        found.append(
            warning(
                "clock",
                f"reading the monotonic clock is slow or coarse (source {source or 'unknown'}, "
                f"resolution {facts.resolution_s:g} s)",
                f"cat {_SOURCE.replace('current', 'available')}",
            )
        )
    return found or [ok("clock", f"monotonic and wall clock go together{_ntp(facts)}")]


def _ntp(facts: ClockFacts) -> str:
    return ", kept by NTP" if facts.is_synchronised else "; whether NTP keeps it is not known here"


def _is_synchronised() -> bool | None:
    """Ask the kernel (adjtimex(2) with no mode set changes nothing); None if it does not say."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        answer = ctypes.CDLL(None).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if answer < 0 or ctypes.sizeof(ctypes.c_long) != 8:
        return None  # forbidden in this container, or another layout
    status = ctypes.c_int.from_buffer(buffer, _STATUS_OFFSET).value
    return not status & _STA_UNSYNC
