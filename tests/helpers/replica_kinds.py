"""Replica types with operating points made up for tests."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.analysis.deployment.switching import Sleep
from tuner.analysis.plan.replica_type import OperatingPoint, ReplicaType
from tuner.configuration import Configuration


def replica_type(
    name: str = "s/0",
    capacity: float = 8.0,
    powers_w: Sequence[float] = (300.0, 350.0, 400.0, 450.0),
    *,
    gpus: int = 1,
    start_s: float = 60.0,
    start_j: float = 12_000.0,
    sleep_w: float | None = None,
    configuration: Configuration | None = None,
) -> ReplicaType:
    """Return a type with points at even shares of its capacity."""
    shares = [(place + 1) / len(powers_w) for place in range(len(powers_w))]
    points = tuple(
        OperatingPoint(capacity * share, power_w, power_w, power_w, {"mean_e2el_ms": 8000.0})
        for share, power_w in zip(shares, powers_w, strict=True)
    )
    sleep = None if sleep_w is None else Sleep(1, 2.0, 300.0, sleep_w, 3.0, 900.0)
    return ReplicaType(
        name=name,
        study=name.partition("/")[0],
        trial=int(name.partition("/")[2] or 0),
        configuration=configuration or Configuration(),
        gpus=gpus,
        capacity=capacity,
        points=points,
        answer_s=8.0,
        idle_w=120.0 * gpus,
        off_w=70.0 * gpus,
        start_s=start_s,
        start_energy_j=start_j,
        sleep=sleep,
    )
