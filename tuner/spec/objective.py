"""Objectives: metrics to minimise or maximise, told to the sampler in log space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import UsageError
from tuner.metrics import OUTPUT_KINDS, TEXT, Direction, Output, OutputKind, metric_named

_SMALLEST = 1e-9  # a measured 0 (no goodput at all) stays finite in log space


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric and the direction to optimise it.

    `written` is the text that it was parsed from; the store keeps it.
    """

    metric: str
    direction: Direction
    written: str | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read `METRIC` or `METRIC:min|max`; raises `UsageError`."""
        name, colon, direction = text.partition(":")
        try:
            metric = metric_named(name.strip())
        except UsageError as error:
            raise UsageError(f"objective '{text}': {error}") from None
        if not colon:
            return cls(metric.name, metric.better, text)
        if direction not in ("min", "max"):
            raise UsageError(f"objective '{text}': found ':{direction}', allowed: ':min', ':max'")
        return cls(metric.name, Direction(direction), text)

    def cost(self, metrics: Mapping[str, float]) -> float | None:
        """Return the log of the metric, negated for `max`: less is better. None if not measured."""
        value = metrics.get(self.metric)
        if value is None:
            return None
        log = math.log(max(value, _SMALLEST))
        return log if self.direction is Direction.MIN else -log

    @property
    def text(self) -> str:
        """The objective as it was written; `Objective.parse` reads it back."""
        return str(self) if self.written is None else self.written

    def __str__(self) -> str:
        return f"{self.metric}:{self.direction}"


def costs(
    objectives: tuple[Objective, ...], metrics: Mapping[str, float]
) -> tuple[float, ...] | None:
    """Return every objective's cost, or None if one was not measured."""
    values = [objective.cost(metrics) for objective in objectives]
    known = tuple(v for v in values if v is not None)
    return known if len(known) == len(values) else None


def workload_kind(known: Mapping[str, Any]) -> OutputKind:
    """Return what the workload of a spec asks for; text if it cannot be read, which is told later.

    `known` are the fields that were validated before.
    """
    from tuner.catalog.yaml_files import find_yaml, read_mapping  # reading a store needs no YAML

    try:
        written = read_mapping(find_yaml("workloads", str(known.get("workload"))))
    except UsageError:
        return TEXT
    generation, thinks = written.get("generation"), written.get("thinking_levels") is not None
    name = generation.get("output") if isinstance(generation, dict) else thinks and Output.ANSWER
    return next((k for k in OUTPUT_KINDS.values() if k.output == name), TEXT)
