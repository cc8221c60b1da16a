"""Pools: replicas that serve the requests of one task or several, and what is known of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from tuner.analysis.plan.operating_points import replica_types
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.analysis.plan.simulation.scene import Level, Scene, Task
from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.gpu_names import emulated_gpu
from tuner.catalog.model import load_model
from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve, weighted
from tuner.load.workload import Workload, load_workload
from tuner.slo import Slo
from tuner.spec.stored import StoredSpec
from tuner.store import Store, StudyIdentity

_JUDGED = ("ttft_ms", "tpot_ms", "itl_ms", "e2el_ms")
_SAMPLE = 2_000  # answers, for the mean of their lengths


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Replicas that serve some tasks, and the loads of these.

    Attributes:
        tasks: their names.
        model, gpu: that the tasks were measured with.
        types: what a replica may be.
        slos: of each task.
        weights: what a request of each takes of a replica, beside one of the first task's.
        curves: the load of each, in the same steps.
        judges: the same of the day that the plan is proved on.
        scene: what to simulate; None if it cannot be, and `notes` say why.
        emulated: whether the operating points are.
    """

    tasks: tuple[str, ...]
    model: str
    gpu: str
    types: tuple[ReplicaType, ...]
    slos: tuple[tuple[Slo, ...], ...]
    weights: tuple[float, ...]
    curves: tuple[RateCurve, ...]
    judges: tuple[RateCurve, ...]
    scene: Scene | None
    notes: tuple[str, ...]
    emulated: bool

    @property
    def curve(self) -> RateCurve:
        """The load of all tasks, in requests/s of the first."""
        return weighted(self.curves, self.weights)


def task_pool(
    store: Store,
    studies: Sequence[str],
    curve: RateCurve,
    judge: RateCurve,
    *,
    simulated: int,
    seed: int,
    mixes_answers: bool,
) -> Pool:
    """Return the pool of one task, from studies of one workload.

    Raises `UsageError` for studies that do not go together, or of which no plan can be made.
    """
    found = _alike([store.study(name) for name in dict.fromkeys(studies)])
    study, slos = found[0], tuple(Slo.parse(text) for text in found[0].slos)
    types = [t for s in found for t in replica_types(store, s.name, mixes_answers=mixes_answers)]
    notes = [f"{t.name}: estimated: {e}" for t in types for e in t.estimated]
    scene: Scene | None = None
    if simulated == 0:
        notes.append("not proved in simulation, as was asked for")
    else:
        scene, said = _scene(study, slos, types, simulated, seed)
        notes = [*said, *notes]
    return Pool(
        tasks=(study.workload_name,),
        model=study.model,
        gpu=study.gpu,
        types=tuple(types),
        slos=(slos,),
        weights=(1.0,),
        curves=(curve,),
        judges=(judge,),
        scene=scene,
        notes=tuple(notes),
        emulated=study.evaluation == "virtual",
    )


def shared_pools(pools: Sequence[Pool]) -> list[Pool]:
    """Return a pool of all tasks for each configuration that was measured under every one of them.

    There is none for tasks of several models.
    """
    first, found = pools[0], []
    if len({pool.model for pool in pools}) > 1:
        return []
    for kind in first.types:
        same = [
            next((t for t in pool.types if t.configuration == kind.configuration), None)
            for pool in pools
        ]
        kinds = [t for t in same if t is not None]
        if len(kinds) == len(pools):
            found.append(_shared(kinds, pools))
    return found


def _shared(kinds: Sequence[ReplicaType], pools: Sequence[Pool]) -> Pool:
    weights = tuple(kinds[0].capacity / t.capacity for t in kinds)
    asked = np.array([p.curves[0].requests * w for p, w in zip(pools, weights, strict=True)])
    kind = shared_type(kinds, (asked / asked.sum()).tolist())
    scenes = [pool.scene for pool in pools]
    scene: Scene | None = None
    if all(one is not None for one in scenes) and scenes[0] is not None:
        tasks = [
            replace(one.tasks[0], weight=weight)
            for one, weight in zip(scenes, weights, strict=True)
            if one is not None
        ]
        total = sum(one.requests for one in scenes if one is not None)
        scene = replace(scenes[0], tasks=tuple(tasks), requests=total)
    return Pool(
        tasks=tuple(name for pool in pools for name in pool.tasks),
        model=pools[0].model,
        gpu=pools[0].gpu,
        types=(kind,),
        slos=tuple(slos for pool in pools for slos in pool.slos),
        weights=weights,
        curves=tuple(pool.curves[0] for pool in pools),
        judges=tuple(pool.judges[0] for pool in pools),
        scene=scene,
        notes=(
            f"requests/s are {pools[0].tasks[0]}'s: one of {_and_weights(pools[1:], weights[1:])}",
            *dict.fromkeys(note for pool in pools for note in pool.notes),
        ),
        emulated=any(pool.emulated for pool in pools),
    )


def _and_weights(pools: Sequence[Pool], weights: Sequence[float]) -> str:
    each = zip(pools, weights, strict=True)
    return ", one of ".join(f"{pool.tasks[0]} counts as {weight:.3g}" for pool, weight in each)


def shared_type(kinds: Sequence[ReplicaType], shares: Sequence[float]) -> ReplicaType:
    """Return a configuration under the requests of several tasks, in requests/s of the first.

    `kinds` are its operating points under each alone, `shares` the part of the work that each is.
    A replica that is filled to a part of its capacity draws the mean, weighted so, of what it draws
    filled to that part by each alone. That is an estimate; the proof simulates the mixture.
    """
    first = kinds[0]
    filled = sorted({p.rate / t.capacity for t in kinds for p in t.points})
    both = list(zip(kinds, shares, strict=True))
    points = []
    for part in filled:
        power_w = sum(s * float(t.power_w(np.array([part * t.capacity]))[0]) for t, s in both)
        e2el_ms = sum(s * _e2el_ms(t, part) * t.capacity for t, s in both) / first.capacity
        point = replace(
            first.points[0],
            rate=part * first.capacity,
            power_w=power_w,
            low_w=power_w,
            high_w=power_w,
            metrics={"mean_e2el_ms": e2el_ms},
        )
        points.append(point)
    names = " and ".join(t.name for t in kinds)
    return replace(
        first,
        name=names,
        points=tuple(points),
        answer_s=sum(s * t.answer_s * t.capacity for t, s in both) / first.capacity,
        idle_w=max(t.idle_w for t in kinds),
        off_w=max(t.off_w for t in kinds),
        start_s=max(t.start_s for t in kinds),
        start_energy_j=max(t.start_energy_j for t in kinds),
        sleep=first.sleep,
    )


def _e2el_ms(kind: ReplicaType, part: float) -> float:
    """Return the mean time of an answer of a replica that is filled to a part of its capacity."""
    known = [p.rate / kind.capacity for p in kind.points]
    return float(np.interp(part, known, [p.metrics["mean_e2el_ms"] for p in kind.points]))


def _alike(studies: Sequence[StudyIdentity]) -> Sequence[StudyIdentity]:
    """Return studies of one task. Raises `UsageError` if these do not go together."""
    first = studies[0]
    for other in studies[1:]:
        for what, differs in (
            ("model", other.model != first.model),
            ("workload", other.workload_sha256 != first.workload_sha256),
            ("SLO", set(other.slos) != set(first.slos)),
            ("GPU", other.gpu != first.gpu),
        ):
            if differs:
                raise UsageError(
                    f"studies '{first.name}' and '{other.name}' have not the same {what}, so one "
                    f"load cannot be spread over both: give each its own --load, as in --study "
                    f"{first.name} --load A.csv --study {other.name} --load B.csv"
                )
    return studies


def _scene(
    study: StudyIdentity,
    slos: tuple[Slo, ...],
    types: Sequence[ReplicaType],
    simulated: int,
    seed: int,
) -> tuple[Scene | None, list[str]]:
    """Return what to simulate, and what is to be said; None if the emulator lacks something."""
    spec = StoredSpec.of(study)
    gpu: Gpu | None
    try:
        asked = spec.asked.get("engine")
        gpu = emulated_gpu(study.gpu) if spec.emulate is None else load_gpu(spec.emulate, asked)
        model, workload = load_model(study.model), load_workload(spec.workload or "chat")
    except UsageError as error:
        return None, [f"not proved in simulation: {error}"]
    if gpu is None:
        return None, [f"not proved in simulation: the emulator does not know {study.gpu}"]
    notes = [
        f"{slo} is not judged in simulation, which knows TTFT, TPOT, ITL and E2EL"
        for slo in slos
        if slo.metric.partition("_")[2] not in _JUDGED
    ]
    task = Task(study.workload_name, workload, slos, stretch=_stretch(types, workload))
    return Scene(model, gpu, (task,), simulated, seed), notes


def _stretch(types: Sequence[ReplicaType], workload: Workload) -> dict[Level, float]:
    """Return by level how many times as long answers were measured as the workload has them.

    1 where the workload says how long each is.
    """
    if workload.spec.stop != "natural":
        return {}
    measured: dict[Level, list[float]] = {}
    for kind in types:
        tokens = [t for p in kind.points if (t := _answer_tokens(p.metrics)) is not None]
        measured.setdefault(kind.configuration.thinking, []).extend(tokens)
    found = {}
    for level, tokens in measured.items():
        lengths = [r.output_tokens for r in islice(workload.requests(level), _SAMPLE)]
        if tokens:
            found[level] = float(np.mean(tokens)) / float(np.mean(lengths))
    return found


def _answer_tokens(metrics: Mapping[str, float]) -> float | None:
    """Return the mean tokens of an answer in a window: its energy over that of a token."""
    answer_j = metrics.get("energy_per_request_j")
    token_j = metrics.get("energy_per_output_token_j")
    return answer_j / token_j if answer_j and token_j else None
