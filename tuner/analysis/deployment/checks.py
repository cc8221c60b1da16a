"""Deployment checks: what the probes at the end of a study say of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.analysis.deployment.headroom import Headroom, Probe, headroom_of, margin
from tuner.analysis.load_text import studied_load
from tuner.records import Failure, FailureKind, Load, Measurement
from tuner.slo import Slo
from tuner.spec.stored import StoredSpec
from tuner.store.rows import ProbeKind, RepeatKind, RepeatRow, StudyIdentity

IDLE_POWER = "idle_power_w"
MOST_DEATHS = 2  # dying once may be the machine's fault


@dataclass(frozen=True, slots=True)
class Stress:
    """A stress test: the longest requests, as many at once as the configuration runs.

    `failure` says why the configuration did not stand it; None if it did.
    """

    requests: int
    most_running: float | None
    duration_s: float
    preemptions: float | None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class DeploymentChecks:
    """The probes of one trial's configuration; None was not measured.

    `headroom` is in requests/s, or with `is_closed_loop` in requests in flight.
    """

    headroom: Headroom | None = None
    is_closed_loop: bool = False
    stress: Stress | None = None
    idle_power_w: float | None = None


def deployment_checks(
    rows: Sequence[RepeatRow], trial: int, slos: Sequence[Slo], studied: Load | None
) -> DeploymentChecks:
    """Return what the repeats and probes of a study say of a trial under some SLOs.

    `studied` is the study's load, at which the repeats were measured.
    """
    own = [r for r in rows if r.trial == trial]
    idle = [r.measurement for r in own if r.kind is ProbeKind.IDLE and r.measurement is not None]
    loads = headroom_probes(own, slos, studied)
    return DeploymentChecks(
        headroom=headroom_of(loads) if loads else None,
        is_closed_loop=studied is not None and studied.concurrency is not None,
        stress=_stress([r for r in own if r.kind is ProbeKind.STRESS]),
        idle_power_w=idle[-1].metrics.get(IDLE_POWER) if idle else None,
    )


def headroom_probes(
    rows: Sequence[RepeatRow], slos: Sequence[Slo], studied: Load | None
) -> list[Probe]:
    """Return the loads that one trial was measured at, with their margins.

    A repeat on the same stretch of traffic is one of them, at the studied load. Without a probe
    there are none. A fault of the machine says nothing.
    """
    stretches = {r.traffic for r in rows if r.kind is ProbeKind.HEADROOM}
    found = []
    for row in rows:
        load = row.load if row.kind is ProbeKind.HEADROOM else studied
        result = row.measurement or row.failure
        is_probe = row.kind is ProbeKind.HEADROOM or isinstance(row.kind, RepeatKind)
        if not is_probe or row.traffic not in stretches or load is None or result is None:
            continue
        if not is_machines_fault(result):
            found.append(Probe(load_value(load), margin(result, slos)))
    return found


def load_value(load: Load) -> float:
    """Return the requests/s of an open loop, or the requests in flight of a closed one."""
    value = load.concurrency if load.request_rate is None else load.request_rate
    assert value is not None
    return float(value)


def is_machines_fault(result: Measurement | Failure) -> bool:
    """Say whether the probe says nothing about the configuration."""
    return isinstance(result, Failure) and result.kind.is_machines


def required_load(study: StudyIdentity) -> float | None:
    """Return the load at which the SLOs must hold by `--headroom`; None if it was not given."""
    times, load = StoredSpec.of(study).asked.get("headroom"), studied_load(study)
    return None if times is None or load is None else float(times) * load_value(load)


def unfit_trials(
    study: StudyIdentity, rows: Sequence[RepeatRow], slos: Sequence[Slo]
) -> dict[int, str]:
    """Return why trials may not be deployed: stress, or less headroom than was asked for."""
    found: dict[int, str] = {}
    required = required_load(study)
    for trial in dict.fromkeys(r.trial for r in rows if isinstance(r.kind, ProbeKind)):
        own = [r for r in rows if r.trial == trial]
        stress = _stress([r for r in own if r.kind is ProbeKind.STRESS])
        misses = headroom_of(headroom_probes(own, slos, studied_load(study))).misses
        if stress is not None and stress.failure is not None:
            found[trial] = f"under stress it failed ({stress.failure})"
        elif required is not None and misses is not None and misses <= required:
            found[trial] = f"it misses the SLO at {misses:g}, and --headroom asks for {required:g}"
    return found


def _stress(rows: Sequence[RepeatRow]) -> Stress | None:
    """Return the last test that passed, or the failure; one death alone decides nothing."""
    failures = [r.failure for r in rows if r.failure is not None and r.measurement is None]
    own = [f.reason for f in failures if f.kind is FailureKind.CONFIGURATION]
    died = [f.reason for f in failures if f.kind is FailureKind.UNSTABLE]
    if reasons := [*own, *died[MOST_DEATHS - 1 :]]:
        return Stress(0, None, 0.0, None, reasons[0])
    passed = [r.measurement for r in rows if r.measurement is not None]
    if not passed:
        return None
    m = passed[-1]
    return Stress(
        requests=round(m.metrics["requests"]),
        most_running=m.metrics.get("most_running"),
        duration_s=m.window_end_s - m.window_start_s,
        preemptions=m.metrics.get("preemptions"),
    )
