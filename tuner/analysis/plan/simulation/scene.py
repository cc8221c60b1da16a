"""Scene of a simulated day: the machine, and the tasks with their requests and SLOs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.load.workload import Workload
from tuner.records import Request
from tuner.slo import Slo

REQUESTS = 60_000
ATTAINMENT = 0.99
SHARES = {"p50": 0.5, "mean": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

Level = str | None  # of thinking; None is the workload's own


@dataclass(frozen=True, slots=True)
class Task:
    """Requests of one kind, and what they are promised.

    `weight` is how much of a replica's capacity a request takes, beside one of the first task's.
    `stretch` is by level how many times as long answers are as the workload's, where the model and
    not the workload ends them.
    """

    name: str
    workload: Workload
    slos: tuple[Slo, ...]
    weight: float = 1.0
    stretch: Mapping[Level, float] = field(default_factory=dict)

    @property
    def needed(self) -> float:
        """The share of requests that has to be good: the least percentile of the SLOs."""
        shares = [SHARES.get(slo.metric.partition("_")[0], ATTAINMENT) for slo in self.slos]
        return min(shares, default=ATTAINMENT)

    def forms(self, levels: Sequence[Level], seed: int) -> Iterator[tuple[Request, ...]]:
        """Yield requests that no study has measured, each as it is asked at every level."""
        unseen = self.workload.unseen(seed)
        return zip(*(self._asked(unseen, level) for level in levels), strict=True)

    def _asked(self, workload: Workload, level: Level) -> Iterator[Request]:
        requests, factor = workload.requests(level), self.stretch.get(level, 1.0)
        if factor == 1.0:
            return requests
        return (
            replace(one, output_tokens=max(1, round(one.output_tokens * factor)))
            for one in requests
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated: the machine and the tasks; `requests` is about how many."""

    model: ModelShape
    gpu: Gpu
    tasks: tuple[Task, ...]
    requests: int = REQUESTS
    seed: int = 0
