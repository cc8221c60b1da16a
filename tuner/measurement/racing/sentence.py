"""The sentence that says to whom and how a race was lost, and reading it.

It is all that stores, logs and other tools keep of a race. The search learns from its figures: what
lost by a twentieth is nearer to winning than what lost by a half.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_SENTENCE = "ended early: it {} trial {} on the same requests of {} s: {}"
_READ = re.compile(re.escape(_SENTENCE).replace(r"\{\}", "(.+?)") + "$")
_FIGURE = re.compile(r"(\w+) ([+-]\d+(?:\.\d+)?) %")


@dataclass(frozen=True, slots=True)
class Lost:
    """To which trial a race was lost, and log(own value / its value) of each metric compared."""

    trial: int
    log_ratios: Mapping[str, float]


def lost_sentence(how: str, lost: Lost, after_s: float) -> str:
    """Say that a trial `how`, such as 'is no better than', and by how much of what."""
    figures = ", ".join(f"{name} {math.expm1(r):+.2%}" for name, r in lost.log_ratios.items())
    return _SENTENCE.format(how, lost.trial, f"{after_s:.0f}", figures.replace("%", " %"))


def lost_in(reason: str) -> Lost | None:
    """Return what such a sentence says; None for any other reason."""
    found = _READ.match(reason)
    if found is None or not found[2].isdecimal():
        return None
    shares = {name: float(percent) / 100.0 for name, percent in _FIGURE.findall(found[4])}
    known = {name: math.log1p(share) for name, share in shares.items() if share > -1.0}
    return Lost(int(found[2]), known)
