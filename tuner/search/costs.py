"""What an evaluation costs, learned from those that were made."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.search.observation import Observation

_UNKNOWN_LAUNCH_SHARE = 1.0  # of an evaluation, until a launch was seen


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that a launch, and an evaluation on a warm server, take."""

    launch_s: float
    evaluation_s: float


def learned_costs(observations: Sequence[Observation]) -> Costs:
    """Return the medians so far; in relative units while no duration is known."""
    evaluations = [
        o.wall_s - (o.launch_s or 0.0) for o in observations if o.works and o.wall_s is not None
    ]
    launches = [o.launch_s for o in observations if o.launch_s is not None]
    evaluation_s = statistics.median(evaluations) if evaluations else 1.0
    launch_s = statistics.median(launches) if launches else _UNKNOWN_LAUNCH_SHARE * evaluation_s
    return Costs(launch_s, evaluation_s)
