"""Front roles: the fastest member, the one with most throughput, and the knee."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from tuner.analysis.outcomes import metric, point_of
from tuner.metrics import TEXT, OutputKind, kind_of
from tuner.pareto import knee
from tuner.spec.objective import Objective
from tuner.store.rows import TrialRow

_LEAST_FOR_A_KNEE = 3  # of two members each is an end


class Role(StrEnum):
    """The reason to prefer another member of the front to the recommended one."""

    FASTEST = "fastest"
    MOST_THROUGHPUT = "most throughput"
    KNEE = "knee"


def roles(
    front: Sequence[TrialRow], objectives: Sequence[str], *, is_open_loop: bool = False
) -> dict[Role, int]:
    """Return which trial of a front has which role; of equals the earlier in the front.

    The fastest has the least p99 TPOT, or latency of an image or video. The knee is that of
    `tuner.pareto`, which the confirmation measures early. A role that cannot be decided is left
    out. In an open loop the throughput is what is offered, so none has the most.
    """
    kind = next((kind_of(t.measurement.metrics) for t in front if t.measurement), TEXT)
    numbers = {
        Role.FASTEST: _least({t.number: metric(t, kind.columns[0]) for t in front}),
        Role.MOST_THROUGHPUT: None if is_open_loop else _most_throughput(front, kind),
        Role.KNEE: _knee(front, [Objective.parse(text) for text in objectives]),
    }
    return {role: number for role, number in numbers.items() if number is not None}


def _most_throughput(front: Sequence[TrialRow], kind: OutputKind) -> int | None:
    return _least({t.number: _negated(metric(t, kind.throughput)) for t in front})


def _least(values: dict[int, float | None]) -> int | None:
    known = {number: value for number, value in values.items() if value is not None}
    return min(known, key=lambda number: known[number]) if known else None


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _knee(front: Sequence[TrialRow], objectives: Sequence[Objective]) -> int | None:
    points = {t.number: p for t in front if (p := point_of(t, objectives)) is not None}
    if len(points) < _LEAST_FOR_A_KNEE or len(objectives) < 2:
        return None
    if any(min(column) == max(column) for column in zip(*points.values(), strict=True)):
        return None
    return list(points)[knee(list(points.values()))]
