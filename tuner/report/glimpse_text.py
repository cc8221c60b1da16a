"""How the load goes right now, in one line."""

from __future__ import annotations

from tuner.records import Glimpse, Source
from tuner.report.terminal.front_table import number


def glimpse_text(glimpse: Glimpse) -> str:
    """Return what is known, such as `412 W  1395 MHz  latest answers: TTFT 35 ms, TPOT 9.8 ms`."""
    parts = []
    if glimpse.power_w is not None:
        parts.append(f"{number(glimpse.power_w)} W")
    if glimpse.sm_clock_mhz is not None:
        parts.append(f"{glimpse.sm_clock_mhz:.0f} MHz")
    if parts and glimpse.power_source is Source.EMULATED:
        parts[-1] += " (emulated)"
    latencies = [
        f"{name} {number(value)} ms"
        for name, value in (("TTFT", glimpse.ttft_ms), ("TPOT", glimpse.tpot_ms))
        if value is not None
    ]
    if latencies:
        label = " (emulated)" if glimpse.latency_source is Source.EMULATED else ""
        parts.append(f"latest answers: {', '.join(latencies)}{label}")
    return "  ".join(parts)
