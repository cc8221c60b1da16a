"""Outcomes of trials: measured, feasible, on the Pareto front, emulated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tuner.measurement.racing.sentence import lost_in
from tuner.metrics import OUTPUT_KINDS, Direction, OutputKind, kind_of
from tuner.pareto import pareto_front
from tuner.records import Measurement, Source
from tuner.slo import Slo, meets_all
from tuner.spec.emulated_errors import emulated_errors
from tuner.spec.objective import Objective
from tuner.spec.stored import StoredSpec
from tuner.store import StudyIdentity, TrialRow, TrialState


def kind_of_study(study: StudyIdentity) -> OutputKind:
    """Return what a study's answers are, and the metrics in their unit."""
    return OUTPUT_KINDS[StoredSpec.of(study).output]


def energy_j(trial: TrialRow | None) -> float | None:
    """Return the energy per token, image or second of video of a trial, J; None if unknown."""
    if trial is None or trial.measurement is None:
        return None
    return energy_in(trial.measurement.metrics)


def energy_in(metrics: Mapping[str, float]) -> float | None:
    """Return the energy per token, image or second of video among metrics, J."""
    return metrics.get(kind_of(metrics).energy)


def metric(trial: TrialRow | None, name: str) -> float | None:
    """Return a trial's measurement, or None."""
    if trial is None or trial.measurement is None:
        return None
    return trial.measurement.metrics.get(name)


def ratio(value: float | None, other: float | None) -> float | None:
    """Return value / other; None if either is unknown, or the other is 0."""
    return None if value is None or not other else value / other


def finished_requests(measurement: Measurement) -> int | None:
    """Return how many requests finished in the window: those behind its TPOT and E2EL."""
    rate = measurement.metrics.get("request_throughput_req_s")
    window_s = measurement.window_end_s - measurement.window_start_s
    return None if rate is None else round(rate * window_s)


def measured(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """Return the trials that have a measurement and did not fail."""
    return [t for t in trials if t.measurement is not None and t.failure is None]


def trials_text(trials: Iterable[TrialRow], budget: int | None) -> str:
    """Return how many of the budget's trials have ended, and what came on top, in words.

    What the machine spoiled is tried again and takes nothing of the budget. Knobs that are taken
    back after the search come on top of it.
    """
    ended = [t for t in trials if t.state is not TrialState.RUNNING]
    spoiled = sum(t.failure is not None and t.failure.kind.is_machines for t in ended)
    counted = len(ended) - spoiled
    if budget is None:
        text = f"{counted} trials"
    else:
        text = f"{min(counted, budget)} of {budget} trials"
        if counted > budget:
            text += f" and {counted - budget} after the search"
    return f"{text}, {spoiled} attempts spoiled by the machine" if spoiled else text


def ended_early(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """Return the trials whose window was ended because they clearly missed an SLO of the study."""
    return [t for t in trials if t.measurement and t.measurement.ended_early is not None]


def has_lost_a_race(trial: TrialRow) -> bool:
    """Say whether a trial was ended early because it was no better than another."""
    found = trial.measurement
    return found is not None and lost_in(found.ended_early or "") is not None


def meets_slo(trial: TrialRow, slos: Iterable[Slo]) -> bool | None:
    """Say whether a trial meets every SLO; None where it measured nothing."""
    if trial.measurement is None or trial.failure is not None:
        return None
    return meets_all(trial.measurement.metrics, slos)


def feasible(trials: Iterable[TrialRow], slos: Sequence[Slo]) -> list[TrialRow]:
    """Return the measured trials that meet every SLO."""
    return [t for t in measured(trials) if meets_slo(t, slos)]


def baseline_of(trials: Sequence[TrialRow]) -> TrialRow | None:
    """Return the default's trial: the first that was measured, or else the last that was tried."""
    tried = [t for t in trials if t.baseline]
    return next(iter(measured(tried)), tried[-1] if tried else None)


def front_of(
    trials: Iterable[TrialRow], slos: Sequence[Slo], objectives: Sequence[Objective]
) -> list[TrialRow]:
    """Return the trials that meet every SLO and that no other such trial beats in everything.

    Best in the first objective first. A trial that lacks a metric of either is not on the front.
    """
    placed = [
        (point, trial)
        for trial in feasible(trials, slos)
        if (point := point_of(trial, objectives)) is not None
    ]
    return [placed[i][1] for i in pareto_front([point for point, _ in placed])]


def point_of(trial: TrialRow, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """Return the objectives' values, all to be minimised, or None if one was not measured."""
    point: list[float] = []
    for objective in objectives:
        value = metric(trial, objective.metric)
        if value is None:
            return None
        point.append(value if objective.direction is Direction.MIN else -value)
    return tuple(point)


def slos_of(study: StudyIdentity, slos: Sequence[Slo] | None = None) -> tuple[Slo, ...]:
    """Return the SLOs to read a study by: its own, with the given ones over those they replace.

    A given SLO replaces the study's on the same metric; an empty sequence removes all.
    """
    own = tuple(Slo.parse(text) for text in study.slos)
    if not slos:
        return own if slos is None else ()
    given = {slo.metric for slo in slos}
    return (*(slo for slo in own if slo.metric not in given), *slos)


def front(
    study: StudyIdentity,
    trials: Sequence[TrialRow],
    slos: Sequence[Slo] | None = None,
    objectives: Sequence[str] | None = None,
) -> list[TrialRow]:
    """Return the trials that meet every SLO and that no other such trial beats in everything.

    Best in the first objective first. SLOs and objectives are the study's own unless given. A
    trial that lacks a metric of either is not on the front.
    """
    texts = study.objectives if objectives is None else objectives
    return front_of(trials, slos_of(study, slos), [Objective.parse(text) for text in texts])


def emulated(study: StudyIdentity, trials: Iterable[TrialRow]) -> tuple[str, ...]:
    """Return which of `energy` and `latency` are emulated in the study or in any of `trials`."""
    found = [t.measurement for t in trials if t.measurement is not None]
    energy = {study.energy_source, *(m.energy_source for m in found)}
    latency = {study.latency_source, *(m.latency_source for m in found)}
    by_name = (("energy", energy), ("latency", latency))
    return tuple(name for name, sources in by_name if Source.EMULATED in sources)


def emulator_errors(study: StudyIdentity, which: Iterable[str]) -> dict[str, float]:
    """Return how far the emulated metrics may be off, as shares of their values.

    `which` is what is `emulated`.
    """
    asked = {**StoredSpec.of(study).asked, "model": study.model}
    names = tuple(which)
    return emulated_errors(asked, energy="energy" in names, latency="latency" in names)


def with_errors(study: StudyIdentity, which: Iterable[str]) -> tuple[str, ...]:
    """Return what is emulated, each with how far it may be off."""
    names = tuple(which)
    errors = emulator_errors(study, names)
    kind = kind_of_study(study)
    latency = errors.get(f"p50_{kind.latencies[0]}")
    shown = {"energy": errors.get(kind.energy), "latency": latency}
    return tuple(
        name if (error := shown.get(name)) is None else f"{name} (± {100 * error:.0f} %)"
        for name in names
    )
