"""Operating points of a study as replica types: what a plan may run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tuner.analysis.deployment.checks import deployment_checks, load_value
from tuner.analysis.deployment.switching import Switching
from tuner.analysis.load_text import studied_load
from tuner.analysis.plan.replica_type import OperatingPoint, ReplicaType
from tuner.analysis.recommendation.recommend import Recommendation, recommend
from tuner.errors import UsageError
from tuner.measurement.intervals import intervals
from tuner.records import Measurement
from tuner.servers.registry import flag_rules
from tuner.slo import request_limits_ms
from tuner.spec.stored import StoredSpec
from tuner.store import ProbeKind, RepeatRow, Store, TrialRow

LOADS = "0.25x,0.5x,0.75x,1x"
_POWER = "mean_power_w"
_ANSWER = "mean_e2el_ms"
_LEAST_POINTS = 2
_WORTH_IT = 0.95  # of idle power: sleep that saves less is left out
_START_S = 120.0  # of a start that nobody timed


def replica_types(store: Store, study: str, *, mixes_answers: bool = False) -> list[ReplicaType]:
    """Return the configurations of a study that have operating points, the recommendation first.

    They ask for what the recommendation asks for, so that answers are the same at every hour; with
    `mixes_answers` they may think more or less, or make pictures in other steps.

    Raises `UsageError` that says what to run for a study without them, and
    `NoFeasibleConfigurationError` for one in which nothing met the SLOs.
    """
    found = recommend(store, study=study)
    load = studied_load(found.study)
    if load is not None and load.request_rate is None:
        raise UsageError(
            f"study '{study}' measured a closed loop, and a plan is made of requests/s: run one "
            f"with --request-rate and --loads {LOADS}"
        )
    default = () if found.baseline is None else (found.baseline,)
    trials = {t.number: t for t in (found.best, *found.alternatives, *default)}
    may_run = list(trials.values()) if mixes_answers else asking_alike(trials.values())
    types = [t for trial in may_run if (t := _type_of(store, found, trial)) is not None]
    if not types:
        raise UsageError(
            f"study '{study}' has no operating points, of which a plan is made; measure them with "
            f"`tuner resume {study} --loads {LOADS}`"
        )
    return types


def asking_alike(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """Return the trials whose requests ask for the same thinking and steps as the first's."""
    every = list(trials)
    return [t for t in every if t.configuration.asked == every[0].configuration.asked]


def _type_of(store: Store, found: Recommendation, trial: TrialRow) -> ReplicaType | None:
    """Return a trial as a replica type; None if it lacks operating points or a capacity."""
    rows = [row for row in found.probes if row.trial == trial.number]
    checks = deployment_checks(rows, trial.number, found.slos, studied_load(found.study))
    capacity = None if checks.headroom is None else checks.headroom.holds
    if capacity is None or all(row.kind is not ProbeKind.LOAD for row in rows):
        return None
    points = _points(store, found, rows, capacity)
    if len(points) < _LEAST_POINTS or checks.idle_power_w is None:
        return None
    idle_w = checks.idle_power_w
    costs, estimated = _switching(store, found, rows, idle_w)
    sleeps = [s for s in costs.sleeps if s.power_w < _WORTH_IT * idle_w]
    whole = trial.configuration.with_fixed(StoredSpec.of(found.study).fixed)
    return ReplicaType(
        name=f"{found.study.name}/{trial.number}",
        study=found.study.name,
        trial=trial.number,
        configuration=whole,
        gpus=flag_rules().gpus_used(whole),
        capacity=capacity,
        points=points,
        answer_s=points[0].metrics[_ANSWER] / 1000.0,
        idle_w=idle_w,
        off_w=min(costs.off_power_w, idle_w),
        start_s=costs.start_s,
        start_energy_j=costs.start_energy_j,
        sleep=min(sleeps, key=lambda s: (s.power_w, s.wake_s), default=None),
        estimated=estimated,
    )


def _points(
    store: Store, found: Recommendation, rows: Sequence[RepeatRow], capacity: float
) -> tuple[OperatingPoint, ...]:
    limits_ms = request_limits_ms(found.slos)
    known: dict[float, OperatingPoint] = {}
    for row, m, rate in _measured(rows):
        if rate > capacity or m.ended_early is not None:
            continue
        raw = store.repeats.raw_run(found.study.name, row.number)
        spread = None if raw is None else intervals(raw, limits_ms).get(_POWER)
        power_w = m.metrics[_POWER]
        low_w, high_w = (power_w, power_w) if spread is None else (spread.low, spread.high)
        known[rate] = OperatingPoint(rate, power_w, low_w, high_w, m.metrics)
    return tuple(known[rate] for rate in sorted(known))


def _measured(rows: Sequence[RepeatRow]) -> Iterator[tuple[RepeatRow, Measurement, float]]:
    """Yield what was measured at a load of its own, with that load in requests/s."""
    for row in rows:
        m = row.measurement
        if row.kind not in (ProbeKind.LOAD, ProbeKind.HEADROOM) or m is None or row.load is None:
            continue
        if _POWER in m.metrics and _ANSWER in m.metrics:
            yield row, m, load_value(row.load)


def _switching(
    store: Store, found: Recommendation, rows: Sequence[RepeatRow], idle_w: float
) -> tuple[Switching, tuple[str, ...]]:
    """Return what a start costs, and what of that is an estimate.

    Where it could not be measured it lasts as long as the longest launch of the study at idle
    power, and GPUs without a server are taken to draw idle power: no saving is made up.
    """
    for row in reversed(rows):
        if row.kind is ProbeKind.SWITCHING and row.measurement is not None:
            return Switching.of(row.measurement.metrics), ()
    timings = [trial.timing for trial in store.trials(found.study.name)]
    launches_s = [t.launch_s for t in timings if t is not None and t.launch_s is not None]
    start_s = max(launches_s, default=_START_S)
    said = (
        f"a start of {start_s:.0f} s at idle power, and idle power without a server, since a "
        "start was not measured"
    )
    return Switching(start_s, start_s * idle_w, idle_w), (said,)
