"""Steps of a plan: when which replica, by its number, starts, wakes, falls asleep or stops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tuner.analysis.plan.fleet import Move
from tuner.analysis.plan.operating_plan import OperatingPlan
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.errors import UsageError

_DAY_S = 86_400.0
_OFF, _RUNNING, _ASLEEP = "off", "running", "asleep"


@dataclass(frozen=True, slots=True)
class Step:
    """One replica's change: seconds after midnight of the first day, its type and number from 1."""

    at_s: float
    move: Move
    kind: int
    replica: int


def steps(plan: OperatingPlan) -> Iterator[Step]:
    """Yield the steps of a plan that repeats daily or weekly.

    The lowest free numbers are started, and the highest ones stopped. Raises `UsageError` for a
    plan of another length: timers could not repeat it.
    """
    period_s = period_of(plan)
    begins_s = offset_s(plan)
    states = [
        [_RUNNING] * int(plan.running[-1, place])
        + [_ASLEEP] * int(plan.asleep[-1, place])
        + [_OFF] * plan.options.gpus
        for place in range(len(plan.types))
    ]
    for action in plan.actions:
        own = states[action.kind]
        for _ in range(action.count):
            number = _chosen(own, action.move)
            own[number] = _after(action.move)
            at_s = (action.at_s + begins_s) % period_s
            yield Step(at_s, action.move, action.kind, number + 1)


def period_of(plan: OperatingPlan) -> float:
    """Return after which time the plan repeats, s: a day, or a week."""
    length_s = plan.demand.intervals * plan.demand.step_s
    for period_s in (_DAY_S, 7 * _DAY_S):
        if abs(length_s - period_s) < plan.demand.step_s:
            return period_s
    raise UsageError(
        f"the plan lasts {length_s / 3600:.4g} h, and timers repeat daily or weekly: give a --load "
        "of one day or of seven"
    )


def unit_name(kind: ReplicaType) -> str:
    """Return the name of a type's units and objects."""
    text = f"vllm-{kind.study}-{kind.trial}".lower()
    return "".join(c if c.isalnum() else "-" for c in text).strip("-")[:50]


def clock_of(plan: OperatingPlan, at_s: float) -> tuple[int, int, int | None]:
    """Return hour, minute, and the day of the week (0 is Sunday) of a weekly plan."""
    minutes = int(at_s // 60)
    day = None if period_of(plan) == _DAY_S else (_first_weekday(plan) + minutes // 1440) % 7
    return minutes // 60 % 24, minutes % 60, day


def zone_of(plan: OperatingPlan) -> str:
    """Return the time zone of the plan's times: UTC where they have dates, else the machine's."""
    return "UTC" if plan.curve.starts_at is not None else ""


def _first_weekday(plan: OperatingPlan) -> int:
    """Return the day that the plan begins on; Monday if it has no dates."""
    starts_at = plan.curve.starts_at
    return 1 if starts_at is None else (starts_at.weekday() + 1) % 7


def offset_s(plan: OperatingPlan) -> float:
    """Return how long after a midnight the plan begins, s."""
    starts_at = plan.curve.starts_at
    if starts_at is None:
        return 0.0
    return float(starts_at.hour * 3600 + starts_at.minute * 60 + starts_at.second)


def _chosen(states: list[str], move: Move) -> int:
    wanted = {Move.START: _OFF, Move.WAKE: _ASLEEP, Move.DROP: _ASLEEP}.get(move, _RUNNING)
    own = [number for number, state in enumerate(states) if state == wanted]
    return own[0] if move in (Move.START, Move.WAKE) else own[-1]


def _after(move: Move) -> str:
    return {Move.START: _RUNNING, Move.WAKE: _RUNNING, Move.SLEEP: _ASLEEP}.get(move, _OFF)
