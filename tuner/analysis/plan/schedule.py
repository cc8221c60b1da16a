"""Schedule: the states of least energy over the intervals of a day, by dynamic programming.

Exact for the fleet that it is given: every state is tried in every interval, and the moves between
them at their least cost. After a change the fleet stays as it is for the dwell time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from tuner.analysis.plan.demand import Demand
from tuner.analysis.plan.fleet import Counts, Fleet
from tuner.records import FloatArray

_ROUNDING = 1.0 - 1e-9  # of a capacity that just meets the need
_LOST_J = 1e7  # a request that is not served under a power budget; more than any uses


@dataclass(frozen=True, slots=True)
class Goal:
    """What a schedule is for: all of the load with the least energy; or, with a budget, the most.

    Under a budget of power the mean power of all GPUs stays below it in every interval.
    """

    power_budget_w: float | None = None

    def served(self, fleet: Fleet, rate: float, need: float) -> FloatArray:
        """Return what each state serves, requests/s: the load, as far as it has the capacity."""
        if self.power_budget_w is None:
            return np.full(fleet.size, rate)
        return np.minimum(rate, fleet.capacity * (rate / need if need else 1.0))

    def costs(self, fleet: Fleet, demand: Demand, interval: int) -> FloatArray:
        """Return the cost of each state in an interval, J; infinite where it may not be."""
        rate, need = float(demand.rates[interval]), float(demand.needs[interval])
        served = self.served(fleet, rate, need)
        power_w = fleet.power_w(served)
        has_room = fleet.used_gpus <= demand.most_gpus(interval)
        if self.power_budget_w is None:
            is_allowed = has_room & (fleet.capacity >= need * _ROUNDING)
            return np.where(is_allowed, power_w * demand.step_s, inf)
        costs_j = (power_w + (rate - served) * _LOST_J) * demand.step_s
        return np.where(has_room & (power_w <= self.power_budget_w), costs_j, inf)

    def outcome(
        self, fleet: Fleet, demand: Demand, states: Counts
    ) -> tuple[FloatArray, FloatArray]:
        """Return what is served, requests/s, and the power, W, in each interval."""
        served, power_w = np.empty((2, demand.intervals))
        for interval, state in enumerate(states):
            rate, need = float(demand.rates[interval]), float(demand.needs[interval])
            rates = self.served(fleet, rate, need)
            served[interval] = rates[state]
            power_w[interval] = fleet.power_w(rates)[state]
        return served, power_w


ALL_OF_IT = Goal()


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """A state for each interval, and its cost by the operating points: energy, J.

    Under a power budget the cost also holds what is not served.
    """

    fleet: Fleet
    states: Counts
    cost_j: float


def best_schedule(
    fleet: Fleet,
    demand: Demand,
    dwell: int = 1,
    goal: Goal = ALL_OF_IT,
    *,
    repeats: bool = False,
    at_most_j: float = inf,
) -> Schedule | None:
    """Return the schedule of least energy; None if no state has the capacity that is needed.

    After a change there is none for `dwell` intervals in all. The first state is free of charge.
    A plan that `repeats` pays for the change from its end to its begin: the best is taken that
    begins as the open one does, as that ends, or as the best constant fleet; no other is tried.
    None also if it is known early that it would cost more than `at_most_j`.
    """
    open_end = _solved(fleet, demand, dwell, goal, None)
    if open_end is None or open_end.cost_j > at_most_j:
        return None
    if not repeats:
        return open_end
    constant = int(constant_costs(fleet, demand, goal).argmin())
    begins = dict.fromkeys((int(open_end.states[0]), int(open_end.states[-1]), constant))
    closed = [_solved(fleet, demand, dwell, goal, state) for state in begins]
    return min((one for one in closed if one is not None), key=lambda s: s.cost_j, default=None)


def constant_costs(fleet: Fleet, demand: Demand, goal: Goal = ALL_OF_IT) -> FloatArray:
    """Return the cost of staying in each state, J; infinite where it may not be once."""
    total = np.zeros(fleet.size)
    for interval in range(demand.intervals):
        total = total + goal.costs(fleet, demand, interval)
    return total


def _solved(
    fleet: Fleet, demand: Demand, dwell: int, goal: Goal, loop_at: int | None
) -> Schedule | None:
    """Solve; with `loop_at` the plan begins in that state, and pays for returning to it."""
    held = _forward(fleet, demand, dwell, goal, loop_at)
    last = held[-1].copy()
    if loop_at is not None:
        last[1:] = last[1:] + np.where(np.arange(fleet.size) == loop_at, 0.0, inf)
        last[0] = last[0] + fleet.costs_to(loop_at, demand.most_gpus(-1))
    place = int(last.argmin())
    cost_j = float(last.flat[place])
    if cost_j == inf:
        return None
    hold, state = divmod(place, fleet.size)
    states = np.empty(demand.intervals, dtype=np.int64)
    for interval in range(demand.intervals - 1, 0, -1):
        states[interval] = state
        hold, state = _before(
            fleet, held[interval - 1], hold, state, dwell, demand.most_gpus(interval - 1)
        )
    states[0] = state
    return Schedule(fleet, states, cost_j)


def _forward(
    fleet: Fleet, demand: Demand, dwell: int, goal: Goal, loop_at: int | None
) -> FloatArray:
    """Return the least energy up to each interval; shape (intervals, dwell, states).

    The second axis counts the intervals for which the fleet still has to stay as it is.
    """
    held = np.full((demand.intervals, dwell, fleet.size), inf)
    held[0, 0] = goal.costs(fleet, demand, 0)
    if loop_at is not None:
        held[0, 0, np.arange(fleet.size) != loop_at] = inf
    for interval in range(1, demand.intervals):
        before, now = held[interval - 1], held[interval]
        moved = fleet.relaxed(before[0], demand.most_gpus(interval - 1))
        if dwell == 1:
            now[0] = moved
        else:
            now[0] = np.minimum(before[0], before[1])
            now[1:-1] = before[2:]
            now[-1] = moved
        now += goal.costs(fleet, demand, interval)
    return held


def _before(
    fleet: Fleet, before: FloatArray, hold: int, state: int, dwell: int, most_gpus: float
) -> tuple[int, int]:
    """Return where a state of the forward pass came from."""
    if hold == dwell - 1:
        return 0, int((before[0] + fleet.costs_to(state, most_gpus)).argmin())
    if hold == 0:
        return (0, state) if before[0, state] <= before[1, state] else (1, state)
    return hold + 1, state
