"""Plans together: several tasks, each with replicas of its own, on the GPUs that they share.

Only the GPUs couple them: if the plans that are best alone fit beside each other, they are the
best. Else they are made one after another in every order, each with what those before leave free in
every interval, and the order of least energy is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from tuner.analysis.plan.demand import Counts
from tuner.analysis.plan.fleet import gpu_off_w
from tuner.analysis.plan.operating_plan import (
    Constant,
    OperatingPlan,
    PlanOptions,
    interval_s,
    make_plan,
)
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a plan is to be made of: types, a load, and the reserve, with more in some hours."""

    types: tuple[ReplicaType, ...]
    curve: RateCurve
    reserve: float
    more_in: Mapping[int, float] = field(default_factory=dict)

    def asked(self, options: PlanOptions) -> PlanOptions:
        """Return options with its reserve."""
        return replace(options, reserve=self.reserve, more_in=self.more_in)


def plans_together(wanted: Sequence[Wanted], options: PlanOptions) -> tuple[OperatingPlan, ...]:
    """Return a plan for each; together they never use more than the GPUs.

    Raises `UsageError` for a load beyond the capacity, alone or beside the others.
    """
    if len(wanted) == 1:
        only = wanted[0]
        return (make_plan(only.types, only.curve, only.asked(options)),)
    off_w = max(gpu_off_w(one.types) for one in wanted)
    same = [
        replace(one, types=tuple(replace(t, off_w=off_w * t.gpus) for t in one.types))
        for one in wanted
    ]
    step_s = max(interval_s(one.types, one.curve, options.step_s) for one in same)
    shares = _shares([_peak_gpus(one) for one in same], options.gpus)
    each = [
        replace(one.asked(options), step_s=step_s, own_gpus=share)
        for one, share in zip(same, shares, strict=True)
    ]
    alone = [make_plan(one.types, one.curve, own) for one, own in zip(same, each, strict=True)]
    over = sum(plan.blocked_gpus for plan in alone) - options.gpus
    if int(np.max(over)) <= 0:
        return tuple(alone)
    orders = [_in_order(order, same, each) for order in permutations(range(len(same)))]
    held = [plans for plans in orders if plans is not None]
    if not held:
        place = int(np.argmax(over))
        raise UsageError(
            f"replicas of their own for each task need {options.gpus + int(np.max(over))} GPUs at "
            f"{same[0].curve.clock(place * step_s)}: give more --gpus, or a smaller --reserve or "
            "--scale"
        )
    return min(held, key=energy_together_j)


def energy_together_j(plans: Sequence[OperatingPlan]) -> float:
    """Return the energy of plans on the same GPUs, by the operating points, J."""
    return together_j([plan.energy_j for plan in plans], plans)


def together_j(energies_j: Sequence[float], plans: Sequence[OperatingPlan]) -> float:
    """Return the energy of all GPUs, J; each of `energies_j` has those that its plan leaves off."""
    first = plans[0]
    off_j = first.off_w * first.options.gpus * first.demand.intervals * first.demand.step_s
    return sum(energies_j) - (len(plans) - 1) * off_j


def fit_together(constants: Sequence[Constant], plans: Sequence[OperatingPlan]) -> bool:
    """Say whether fleets that stay as they are fit on the GPUs."""
    used = sum(
        count * kind.gpus
        for constant, plan in zip(constants, plans, strict=True)
        for count, kind in zip(constant.running, plan.types, strict=True)
    )
    return used <= plans[0].options.gpus


def _in_order(
    order: Sequence[int], wanted: Sequence[Wanted], options: Sequence[PlanOptions]
) -> tuple[OperatingPlan, ...] | None:
    found: dict[int, OperatingPlan] = {}
    free: Counts | None = None
    for place in order:
        one = wanted[place]
        try:
            plan = make_plan(one.types, one.curve, replace(options[place], free_gpus=free))
        except UsageError:
            return None
        found[place] = plan
        free = (plan.options.gpus if free is None else free) - plan.blocked_gpus
    return tuple(found[place] for place in range(len(wanted)))


def _peak_gpus(one: Wanted) -> float:
    best = one.types[0]
    return float(one.curve.rates.max()) / best.capacity * best.gpus


def _shares(needs: Sequence[float], gpus: int) -> list[int]:
    """Split the GPUs in proportion to what each needs at its peak, at least one for each."""
    shares = [max(1, int(gpus * need / sum(needs))) for need in needs]
    while sum(shares) < gpus:
        place = max(range(len(needs)), key=lambda i: needs[i] / shares[i])
        shares[place] += 1
    return shares
