"""The current state of a load, in one line."""

from __future__ import annotations

from tuner.records import LoadSnapshot, Source
from tuner.report.labels import number


def snapshot_text(snapshot: LoadSnapshot) -> str:
    """Return what is known, such as `412 W  1395 MHz  latest answers: TTFT 35 ms, TPOT 9.8 ms`."""
    parts = []
    if snapshot.power_w is not None:
        parts.append(f"{number(snapshot.power_w)} W")
    if snapshot.sm_clock_mhz is not None:
        parts.append(f"{snapshot.sm_clock_mhz:.0f} MHz")
    if parts and snapshot.power_source is Source.EMULATED:
        parts[-1] += " (emulated)"
    latencies = [
        f"{name} {number(value)} ms"
        for name, value in (("TTFT", snapshot.ttft_ms), ("TPOT", snapshot.tpot_ms))
        if value is not None
    ]
    if latencies:
        label = " (emulated)" if snapshot.latency_source is Source.EMULATED else ""
        parts.append(f"latest answers: {', '.join(latencies)}{label}")
    return "  ".join(parts)
