"""Prober: measures and stores one probe of a trial's configuration, as far as the hours last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from tuner.analysis.deployment.checks import IDLE_POWER, is_machines_fault, load_value
from tuner.analysis.deployment.headroom import margin
from tuner.analysis.deployment.switching import START_S
from tuner.evaluation.evaluator import Evaluation, Evaluator, MeasurementPlan
from tuner.evaluation.headroom import headroom_run
from tuner.records import Failure, Load, Measurement
from tuner.spec.study import StudySpec
from tuner.store import ProbeKind, RepeatRow, Store, TrialRow
from tuner.study.durability.patience import WorkersPatience
from tuner.study.listener import Listener
from tuner.study.stored_repeat import RepeatStore
from tuner.study.workers.fleet import Fleet

Evaluate: TypeAlias = Callable[[int], Awaitable[Evaluation]]  # by the number of the probe

_MOST_ATTEMPTS = 2  # of one probe, after faults of the machine


class Prober:
    """Probes the trials of one study."""

    def __init__(
        self,
        name: str,
        spec: StudySpec,
        plan: MeasurementPlan,
        store: Store,
        fleet: Fleet,
        listener: Listener,
    ) -> None:
        self.name = name
        self.spec = spec
        self.plan = plan
        self.store = store
        self._fleet = fleet
        self._repeats = RepeatStore(name, store, fleet)
        self._listener = listener
        self._patience = WorkersPatience(name, store, fleet, spec.patience_s, listener.note)
        self._attempts: dict[tuple[int, ProbeKind, float], int] = {}
        window = plan.unseen_window or plan.window
        least_s = window.latest_start_s + window.longest_window_s
        self.is_late = store.study(name).spent_s + least_s > spec.budget_s  # before this run
        self._earlier = {row.number for row in store.repeats.every(name)}

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator that probes are measured by; another one if its card is lost."""
        return self._fleet.first.evaluator

    @property
    def is_closed_loop(self) -> bool:
        """Whether a load is a number of requests in flight."""
        return self.plan.load.concurrency is not None

    def rows(self) -> list[RepeatRow]:
        """Return every repeat and probe of the study."""
        return self.store.repeats.every(self.name)

    def tell(self, kind: str, message: str) -> None:
        """Say it on the screen, and keep it as an event of the study."""
        self.store.add_event(self.name, kind, message)
        self._listener.note(message)

    async def measure(
        self,
        trial: TrialRow,
        kind: ProbeKind,
        load: Load | None,
        evaluate: Evaluate,
        traffic: int | None = None,
    ) -> Measurement | Failure | None:
        """Measure and store one probe; None if there is no time, or the machine keeps failing.

        A machine that is only busy is waited for first, as in the search.
        """
        key = (trial.number, kind, 0.0 if load is None else load_value(load))
        if self._attempts.get(key, 0) >= _MOST_ATTEMPTS or not self._has_time(kind, load):
            return None
        await asyncio.sleep(0)  # a virtual evaluation never waits, and signals arrive here
        worker = self._fleet.first
        await self._patience.wait(worker)
        evaluation, _ = await self._repeats.measure(
            worker, trial.number, kind, evaluate, traffic, load
        )
        result = evaluation.result
        if not self._patience.bears(worker, result, trial.number):
            self._attempts[key] = self._attempts.get(key, 0) + 1
        self._listener.note(self._told(trial, kind, load, result))
        return result

    def _told(
        self, trial: TrialRow, kind: ProbeKind, load: Load | None, result: Measurement | Failure
    ) -> str:
        """Return what a probe found, in one line."""
        who = "the default" if trial.baseline else f"trial {trial.number}"
        if is_machines_fault(result):
            assert isinstance(result, Failure)
            return f"{kind.value} of {who}: {result.reason}"
        if kind is ProbeKind.HEADROOM and load is not None:
            verdict = "holds" if margin(result, self.spec.slos) >= 1.0 else "is missed"
            unit = "requests at once" if self.is_closed_loop else "requests/s"
            return f"headroom of {who}: the SLO {verdict} at {load_value(load):.4g} {unit}"
        if isinstance(result, Failure):
            return f"{kind.value} of {who}: {result.reason}"
        if kind is ProbeKind.LOAD and load is not None:
            return (
                f"operating point of {who}: {result.metrics['mean_power_w']:.0f} W at "
                f"{load_value(load):.4g} requests/s"
            )
        if kind is ProbeKind.SWITCHING:
            return f"a start of {who} takes {result.metrics[START_S]:.0f} s"
        if kind is ProbeKind.IDLE:
            return f"idle power of {who}: {result.metrics[IDLE_POWER]:.0f} W"
        return f"stress of {who}: {result.metrics['requests']:.0f} long requests, none failed"

    def _has_time(self, kind: ProbeKind, load: Load | None) -> bool:
        """Say whether the hours have room for one more probe; a budget in trials always has.

        Probes of a study whose hours were spent before this run get their share on top, whatever
        earlier runs spent on them.
        """
        if self.spec.hours is None:
            return True
        next_s = self._patience.due_s(self._fleet.first) + self._next_s(kind, load)
        if self.is_late:
            own = [p for p in self._probes() if p.number not in self._earlier]
            own_s = sum(p.timing.elapsed_s for p in own if p.timing)
            return own_s + next_s <= self.spec.checks_s
        return self.store.study(self.name).spent_s + next_s <= self.spec.budget_s

    def _next_s(self, kind: ProbeKind, load: Load | None) -> float:
        """Return how long a probe takes, s: its window, or as long as the longest of its kind."""
        window = self.plan.unseen_window or self.plan.window
        if load is not None and load.request_rate is not None:
            window = headroom_run(self.plan, load, 0).window
        own = [p.timing.elapsed_s for p in self._probes() if p.timing and p.kind is kind]
        return max([window.latest_start_s + window.longest_window_s, *own])

    def _probes(self) -> list[RepeatRow]:
        return self.store.repeats.probes(self.name)
