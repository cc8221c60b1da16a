"""Stretches of a day that are simulated: of every hour those that fill the fleet most.

A day has millions of requests, so parts of it are simulated. In every hour these are the interval
in which the load is the largest part of the running capacity, and one in the middle of that order
if the requests suffice; of each, the stretch around its highest rate.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.analysis.plan.demand import Demand
from tuner.analysis.plan.fleet import Counts
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.emulator.fleet.fleet_run import Stretch
from tuner.load.day.rate_curve import RateCurve

_SHORTEST_S, _SETTLE_S = 45.0, 15.0
_FEWEST = 24  # stretches


def stretches_of(
    types: Sequence[ReplicaType],
    demand: Demand,
    curve: RateCurve,
    running: Counts,
    requests: float,
) -> list[Stretch]:
    """Return the stretches, with about so many requests in all, and as many in each.

    So the quiet hours, too, have enough for a percentile.
    """
    chosen = _chosen(types, demand, running, requests)
    found = []
    for interval in chosen:
        wanted_s = requests / (len(chosen) * max(float(demand.rates[interval]), 1e-9))
        length_s = min(max(wanted_s, _SHORTEST_S), demand.step_s)
        start_s = _busiest(curve, interval * demand.step_s, demand.step_s, length_s)
        settle_s = min(_SETTLE_S, length_s / 3.0)
        counts = tuple(running[interval].tolist())
        found.append(Stretch(interval, start_s, length_s, settle_s, counts))
    return found


def _chosen(
    types: Sequence[ReplicaType], demand: Demand, running: Counts, requests: float
) -> list[int]:
    """Return the intervals to simulate: the tightest of each hour, and a middling one.

    Where these are too many requests, only the tightest, and then only the tightest hours; of a
    day's hours none is left out in a proof, which has that many requests at least.
    """
    capacity = running[: demand.intervals] @ np.array([t.capacity for t in types])
    tightness = demand.needs / np.maximum(capacity, 1e-9)
    hour_of = np.array([demand.hour_of(i) for i in range(demand.intervals)])
    tightest, middling = [], []
    for hour in range(demand.hours):
        own = np.flatnonzero(hour_of == hour)
        if not own.size:  # an interval may be longer than an hour
            continue
        order = own[np.argsort(-tightness[own], kind="stable")]
        tightest.append(int(order[0]))
        middling.append(int(order[len(order) // 2]))
    most = max(_FEWEST, int(requests / (_SHORTEST_S * max(float(demand.rates.mean()), 1e-9))))
    if most >= 2 * len(tightest):
        return sorted({*tightest, *middling})
    return sorted(sorted(tightest, key=lambda i: -tightness[i])[:most])


def _busiest(curve: RateCurve, start_s: float, step_s: float, length_s: float) -> float:
    """Return where in an interval a stretch begins, so that it holds the highest rate."""
    first, last = int(start_s // curve.step_s), int(np.ceil((start_s + step_s) / curve.step_s))
    rates = curve.rates[first : min(last, len(curve.rates))]
    peak_s = (first + int(rates.argmax()) + 0.5) * curve.step_s
    return float(min(max(peak_s - length_s / 2.0, start_s), start_s + step_s - length_s))
