"""Drafts of speculative decoding: how much of them was accepted, by the server's counters."""

from __future__ import annotations

import numpy as np

from tuner.metrics import DRAFT_POSITIONS
from tuner.records import ServerTimeline


def acceptance(server: ServerTimeline, start_s: float, end_s: float) -> dict[str, float]:
    """Return how much of the drafts was accepted in the window; nothing where none was made.

    By position, a metric for each of the first `DRAFT_POSITIONS`.
    """
    counts, times_s = server.drafts, server.times_s
    if counts is None or times_s.size < 2:
        return {}
    drafts, drafted, accepted, *accepted_at = (
        float(np.diff(np.interp([start_s, end_s], times_s, column))[0])
        for column in (counts.drafts, counts.drafted, counts.accepted, *counts.accepted_at)
    )
    if drafts <= 0 or drafted <= 0:
        return {}
    return {
        "draft_acceptance_rate": accepted / drafted,
        "mean_acceptance_length": 1.0 + accepted / drafts,
        **{
            name: accepted / drafts
            for name, accepted in zip(DRAFT_POSITIONS, accepted_at, strict=False)
        },
    }
