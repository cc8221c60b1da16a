"""How reports write names and numbers for people: one place for every label and format."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.configuration import Value
from tuner.metrics import METRICS

UNKNOWN = "\u2013"
EARLY = "*"  # beside the figures of a trial that was ended early
EARLY_NOTE = f"{EARLY} ended early: of a part of the window, not comparable"


def metric_label(name: str) -> str:
    """Return a metric's label, such as `p99 TPOT`; of an unknown one the name itself."""
    return METRICS[name].label if name in METRICS else name


def number(value: float | None) -> str:
    """Return a value to four significant digits, without an exponent below a million."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def percent(value: float | None) -> str:
    """Return a percentage with one decimal."""
    return UNKNOWN if value is None else f"{value:.1f} %"


def emulated_label(which: Sequence[str]) -> str:
    """Return `emulated energy and latency`, or the like, or nothing."""
    return f"emulated {' and '.join(which)}" if which else ""


def knob_text(value: Value | None) -> str:
    """Return a knob's value as the tables show it."""
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)
