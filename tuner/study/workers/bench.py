"""Bench: a set of GPUs with an evaluator of its own, and the order for one in another process."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tuner.evaluation.evaluator import Evaluator, MeasurementPlan
from tuner.evaluation.factory import Knobs, RunContext
from tuner.evaluation.remote.protocol import BenchOrder
from tuner.spec.study import StudySpec
from tuner.study.workers.cards import Card

_CORES = 2  # of a bench: one for the client, one for the server's own


@dataclass(frozen=True, slots=True)
class Bench:
    """An evaluator, and the name of its card in a study on several."""

    evaluator: Evaluator
    card: str | None = None


@dataclass(frozen=True, slots=True)
class Orders:
    """What the orders of all benches of a run have in common; see `BenchOrder`."""

    spec: StudySpec
    plan: MeasurementPlan
    knobs: Knobs
    context: RunContext

    def of(self, card: Card, number: int, cores: frozenset[int] = frozenset()) -> BenchOrder:
        """Return the order of one bench; `number` tells those of a run apart."""
        return BenchOrder(
            spec=spec_of_card(self.spec, card),
            plan=self.plan,
            knobs=self.knobs,
            run_tag=f"{self.context.run_tag}-{number}",
            log_folder=self.context.log_folder / f"card-{number}",
            access=self.context.access,
            gpu_uuids=card.uuids,
            cores=cores,
        )


def spec_of_card(spec: StudySpec, card: Card) -> StudySpec:
    """Return the spec of a study on this card alone."""
    emulate = None if spec.emulate is None else card.name
    return spec.model_copy(update={"emulate": emulate, "cards": None, "ray": None})


def cores_of(number: int, count: int) -> frozenset[int]:
    """Return the cores of a bench, neighbours on the host; none if there are not enough."""
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // count
    return frozenset(cores[number * each : (number + 1) * each] if each >= _CORES else ())
