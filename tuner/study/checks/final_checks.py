"""Final checks of what a study recommends: a stress test, idle power, and the headroom.

They are probes, kept with the repeats: a kill loses the one that runs, and the next run goes on
after those that are stored.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from tuner.analysis.deployment.checks import (
    DeploymentChecks,
    deployment_checks,
    is_machines_fault,
    load_value,
)
from tuner.analysis.deployment.headroom import margin
from tuner.analysis.recommendation.recommend import Recommendation, recommend
from tuner.errors import NoFeasibleConfigurationError
from tuner.evaluation.evaluator import LoadRun
from tuner.evaluation.headroom import find_headroom, headroom_run
from tuner.load.longest import longest_requests
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, FailureKind, Load, Measurement, RawRun, RequestState
from tuner.servers.registry import flag_rules
from tuner.store import ProbeKind, RepeatKind, TrialRow
from tuner.study.checks.prober import Prober

_STRESS_S = 120.0
_STRESS_FILLS_S = 30.0
_LATER = 1.1  # another launch may take longer
_MOST_AT_ONCE = 1024  # the longest requests fill the cache of any server before


class FinalChecks:
    """Probes the recommendation and the default at the end of a study."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self._spec = prober.spec
        self._plan = prober.plan

    async def run(self) -> None:
        """Measure what is not measured yet, as far as the hours last.

        A configuration that does not stand the stress test is no longer recommended, and the next
        one takes its place.
        """
        tested: set[int] = set()
        while (found := self._recommended()) is not None and found.best.number not in tested:
            tested.add(found.best.number)
            await self._stress(found.best)
            await self.required(found.best)
        if found is None:
            return
        await self.idle(found.best)
        default = found.baseline
        traffic = self.hardest_stretch(found.best)
        for trial in (found.best, *([] if default is None or found.is_default else [default])):
            await self.headroom(trial, traffic)

    @property
    def repeats_until_s(self) -> float | None:
        """Until when what these left of the hours may go to more repeats, s of the study's time.

        After them there is time to stress another recommendation as this one was, and to measure
        its idle power. None if nothing was stressed, or operating points follow.
        """
        found, spec = self._recommended(), self._spec
        if found is None or spec.hours is None or spec.loads or self._prober.is_late:
            return None
        again_s = [
            row.timing.elapsed_s
            for row in self._prober.rows()
            if row.trial == found.best.number
            and row.kind in (ProbeKind.STRESS, ProbeKind.IDLE)
            and row.timing is not None
        ]
        return spec.budget_s - _LATER * sum(again_s) if again_s else None

    def _recommended(self) -> Recommendation | None:
        try:
            return recommend(self._prober.store, study=self._prober.name)
        except NoFeasibleConfigurationError:
            return None

    async def _stress(self, trial: TrialRow) -> None:
        load = Load(concurrency=self._most_at_once(trial))
        run = LoadRun(
            requests=partial(longest_requests, self._plan.workload),
            load=load,
            window=WindowPlan(
                window_s=_STRESS_S, watches_backlog=False, begins_after_s=_STRESS_FILLS_S
            ),
            reduce=stress_result,
        )
        number = trial.number
        while self._checks(number).stress is None:
            result = await self._prober.measure(
                trial,
                ProbeKind.STRESS,
                load,
                lambda repeat: self._prober.evaluator.probe(trial.configuration, repeat, run),
            )
            if result is None:
                return

    def _most_at_once(self, trial: TrialRow) -> int:
        rules = flag_rules().limits
        flags = self._plan.full(trial.configuration).flags
        most = None if rules is None else rules.most_running(rules.limits(flags))
        return _MOST_AT_ONCE if most is None else min(most, _MOST_AT_ONCE)

    async def idle(self, trial: TrialRow) -> None:
        """Measure the idle power of a trial's configuration, unless it is known."""
        while self._checks(trial.number).idle_power_w is None:
            result = await self._prober.measure(
                trial,
                ProbeKind.IDLE,
                None,
                lambda repeat: self._prober.evaluator.idle(trial.configuration, repeat),
            )
            if result is None or not is_machines_fault(result):
                return

    async def headroom(self, trial: TrialRow, traffic: int) -> None:
        """Measure loads on a stretch of traffic until the headroom is known."""
        if self._spec.slos and not trial.configuration.offered:
            first = load_value(self._plan.load)
            measure = partial(self._margin, trial, traffic)
            await find_headroom(measure, first, whole=self._prober.is_closed_loop)

    async def required(self, trial: TrialRow) -> None:
        """Measure the load that `--headroom` asks for, unless it was measured."""
        times = self._spec.headroom
        if times is None or trial.configuration.offered:
            return
        value = times * load_value(self._plan.load)
        if self._prober.is_closed_loop:
            value = math.ceil(value)
        await self._margin(trial, self.hardest_stretch(trial), value)

    def hardest_stretch(self, trial: TrialRow) -> int:
        """Return the unseen traffic on which the trial came nearest to its SLOs.

        What holds there holds on most stretches. A search that was begun stays on its own. Of one
        that was not repeated it is where others came nearest.
        """
        rows = [r for r in self._prober.rows() if r.traffic is not None]
        own = [r for r in rows if r.trial == trial.number]
        if begun := [r for r in own if r.kind is ProbeKind.HEADROOM]:
            return begun[0].traffic or 0
        margins = [
            (margin(r.measurement, self._spec.slos), r.traffic or 0)
            for r in own or rows
            if r.measurement is not None and isinstance(r.kind, RepeatKind)
        ]
        return min(margins)[1] if margins else 0

    async def _margin(self, trial: TrialRow, traffic: int, value: float) -> float | None:
        """Return the margin of a load from the store, or measure it; None if that cannot be."""
        is_closed = self._prober.is_closed_loop
        load = Load(concurrency=int(value)) if is_closed else Load(request_rate=value)
        while (known := self._margin_at(trial, traffic, load)) is None:
            result = await self._prober.measure(
                trial,
                ProbeKind.HEADROOM,
                load,
                lambda repeat: self._prober.evaluator.probe(
                    trial.configuration,
                    repeat,
                    headroom_run(self._plan, load, traffic, trial.configuration),
                ),
                traffic,
            )
            if result is None:
                return None
        return known

    def _margin_at(self, trial: TrialRow, traffic: int, load: Load) -> float | None:
        for row in self._prober.rows():
            at = row.load if row.kind is ProbeKind.HEADROOM else self._plan.load
            result = row.measurement or row.failure
            is_same = row.trial == trial.number and row.traffic == traffic and at == load
            if is_same and result is not None and not is_machines_fault(result):
                return margin(result, self._spec.slos)
        return None

    def _checks(self, trial: int) -> DeploymentChecks:
        return deployment_checks(self._prober.rows(), trial, self._spec.slos, self._plan.load)


def stress_result(run: RawRun) -> Measurement | Failure:
    """Return what happened under stress; a request that failed is the configuration's fault."""
    failed = [r for r in run.requests if r.state is RequestState.FAILED]
    if failed:
        reason = f"{len(failed)} of {len(run.requests)} requests failed; first: {failed[0].error}"
        return Failure(FailureKind.CONFIGURATION, reason)
    if run.invalid is not None:
        return Failure(FailureKind.BUSY, run.invalid)
    metrics = {"requests": float(len(run.requests))}
    if run.server.running.size:
        metrics["most_running"] = float(np.max(run.server.running))
    if run.preemptions is not None:
        metrics["preemptions"] = run.preemptions
    return Measurement(
        metrics, run.window_start_s, run.window_end_s, run.latency_source, run.power.source
    )
