"""Knob importance: the share of a metric's variance that each knob alone explains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tuner.analysis.outcomes import measured, metric
from tuner.configuration import Value
from tuner.records import FloatArray
from tuner.store.rows import TrialRow

_MOST_GROUPS = 8
_LEAST_TRIALS = 8


def knob_names(trials: Sequence[TrialRow]) -> list[str]:
    """Return the knobs that took more than one value, in the order in which they appear."""
    every = dict.fromkeys(name for t in trials for name in t.configuration.knobs())
    searched = [t.configuration.knobs() for t in trials if not t.baseline]
    return [name for name in every if len({knobs.get(name) for knobs in searched}) > 1]


def importance(trials: Sequence[TrialRow], name: str) -> dict[str, float]:
    """Return, for each knob, which share of the variance of log `name` its value explains.

    It looks at one knob at a time over the measured trials of the search, so it misses
    interactions. The share is omega squared of a one-way analysis of variance (numbers in groups
    of similar values); its mean is 0 for a knob without effect. Empty for too few trials.
    """
    rows = [(t, v) for t in measured(trials) if (v := metric(t, name)) is not None and v > 0.0]
    if len(rows) < _LEAST_TRIALS:
        return {}
    logs = np.array([math.log(value) for _, value in rows])
    found = {}
    for knob in knob_names(trials):
        values = [t.configuration.knobs().get(knob) for t, _ in rows]
        share = _explained(logs, _groups(values))
        if share is not None:
            found[knob] = share
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def _groups(values: Sequence[Value | None]) -> list[object]:
    """Return a group for each value: itself, or its octile where there are many numbers."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(set(values)) <= _MOST_GROUPS or len(numbers) < len(values) - values.count(None):
        return list(values)
    edges = np.quantile(numbers, np.linspace(0.0, 1.0, _MOST_GROUPS + 1)[1:-1])
    return [
        None if v is None else int(np.searchsorted(edges, float(v), side="right")) for v in values
    ]


def _explained(values: FloatArray, groups: Sequence[object]) -> float | None:
    """Return omega squared, at least 0; None if there is one group, or one of each."""
    members: dict[object, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(float(value))
    count, many = values.size, len(members)
    total = float(((values - values.mean()) ** 2).sum())
    if many < 2 or many >= count or total <= 0.0:
        return None
    within = sum(float(((np.array(m) - np.mean(m)) ** 2).sum()) for m in members.values())
    error = within / (count - many)
    return max(0.0, (total - within - (many - 1) * error) / (total + error))
