"""Stored rivals: the trials of a study that a new one is compared with while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tuner.analysis.outcomes import front_of, measured, meets_slo
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.measurement.racing.race import Race, is_compared
from tuner.measurement.racing.rival import Rival, rival_of
from tuner.metrics import Direction, Output
from tuner.spec.study import StudySpec
from tuner.store import Store, TrialRow

_MOST_MISSES = 6  # rivals that miss an SLO; those that miss it by least tell the most


class StoredRivals:
    """The race of a study, from what its store holds by now; none unless it is `open`.

    There is none either where trials do not see the same requests on the same cards, or where what
    they are compared by cannot be told before the end of a window.
    """

    def __init__(self, name: str, spec: StudySpec, plan: MeasurementPlan, store: Store) -> None:
        self._name = name
        self._spec = spec
        self._begins_after_s = plan.window.begins_after_s
        self._store = store
        self._is_open = False
        self._can_race = (
            spec.racing
            and self._begins_after_s is not None
            and plan.workload.spec.output is Output.TEXT
            and not spec.has_cards
            and all(is_compared(o.metric) and o.direction is Direction.MIN for o in spec.objectives)
        )
        self._known: dict[int, Rival | None] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let trials race meanwhile: those of the search, which need not be known in full."""
        self._is_open = self._can_race
        try:
            yield
        finally:
            self._is_open = False

    def raced(self, plan: MeasurementPlan) -> MeasurementPlan:
        """Return the plan in which trials run against these; it may not leave this process then."""
        return replace(plan, race=self.race) if self._can_race else plan

    def race(self) -> Race | None:
        """Return the race of the next trial; None if there is nobody to run against."""
        if not self._is_open:
            return None
        trials = self._store.trials(self._name)
        rivals = [r for t in self._chosen(trials) if (r := self._rival(t)) is not None]
        if not rivals:
            return None
        names = tuple(objective.metric for objective in self._spec.objectives)
        return Race(names, self._spec.slos, tuple(rivals))

    def _chosen(self, trials: Sequence[TrialRow]) -> list[TrialRow]:
        """Return the front, the default, and those that miss an SLO by least."""
        slos = self._spec.slos
        whole = [
            t
            for t in measured(trials)
            if t.measurement is not None
            and t.measurement.ended_early is None
            and not t.configuration.load
        ]
        front = front_of(whole, slos, self._spec.objectives)
        missing = [t for t in whole if not meets_slo(t, slos)]
        missing.sort(key=self._miss)
        default = [t for t in whole if t.baseline]
        chosen = {t.number: t for t in (*default, *front, *missing[:_MOST_MISSES])}
        return list(chosen.values())

    def _miss(self, trial: TrialRow) -> float:
        assert trial.measurement is not None
        metrics = trial.measurement.metrics
        return max(s.violation(metrics[s.metric]) for s in self._spec.slos if s.metric in metrics)

    def _rival(self, trial: TrialRow) -> Rival | None:
        number, result = trial.number, trial.measurement
        if number not in self._known and result is not None:
            run = self._store.raw_run(self._name, number)
            began_s = result.window_start_s - (self._begins_after_s or 0.0)
            found = None if run is None else rival_of(number, run, result.metrics, began_s)
            self._known[number] = found
        return self._known.get(number)
