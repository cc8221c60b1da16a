"""Overload: the sentence that says how far a server falls behind an open load, and reading it.

A search learns from the number: what serves nine tenths of the load is nearer to serving it than
what serves one. The sentence is all that stores, logs and other tools keep of such a window.
"""

from __future__ import annotations

import re

_SENTENCE = (
    "it does not keep up with the offered load: of {} requests that arrived in {}, {} were added"
)
_NUMBERS = re.compile(re.escape(_SENTENCE).replace(r"\{\}", "(.+?)"))
_LEAST_SHARE = 0.02


def overload_sentence(arrived: int, duration: str, added: float, queue: str) -> str:
    """Say that of `arrived` requests so many were added to a queue, in words, over a duration."""
    return f"{_SENTENCE.format(arrived, duration, f'{added:.0f}')} to the {queue}"


def served_share(reason: str) -> float | None:
    """Return the share of the offered load that was served, 0.02 to 1, from such a sentence.

    None for any other reason.
    """
    found = _NUMBERS.search(reason)
    if found is None:
        return None
    try:
        arrived, added = float(found[1]), float(found[3])
    except ValueError:
        return None
    return min(max(1.0 - added / arrived, _LEAST_SHARE), 1.0) if arrived > 0 else None
