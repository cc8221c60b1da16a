"""Card baselines: the default measured once on each card of a study, so that cards compare.

The search's own trial of the default is one of them; on the other cards it is a probe. Two cards of
one kind differ by several percent on the same work (`docs/cards.md`).
"""

from __future__ import annotations

from tuner.analysis.cards.figures import CardFigures, card_figures
from tuner.analysis.outcomes import baseline_of
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.records import Failure
from tuner.store import ProbeKind, Store, TrialRow
from tuner.study.durability.patience import WorkersPatience
from tuner.study.listener import Listener
from tuner.study.stored_repeat import RepeatStore
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

_MOST_ATTEMPTS = 2  # on one card that is not only busy, in one run


class CardBaselines:
    """Measures the default on each worker's card before that takes part in the search."""

    def __init__(
        self, name: str, plan: MeasurementPlan, store: Store, fleet: Fleet, listener: Listener
    ) -> None:
        self._name = name
        self._plan = plan
        self._store = store
        self._repeats = RepeatStore(name, store, fleet)
        self._listener = listener
        self._fleet = fleet
        self._attempts: dict[str, int] = {}
        self._known: set[str] = set()
        self._sound: set[Worker] = set()

    def lacks(self, worker: Worker) -> bool:
        """Say whether the default is to be measured on this card now.

        It is not before a first trial of it has begun, which may be this worker's.
        """
        card = worker.card
        if card is None or card in self._known or self._attempts.get(card, 0) >= _MOST_ATTEMPTS:
            return False
        default = self._default()
        if default is None or default.owner.card == card:
            return False
        if card in {one.card for one in self._figures()}:
            self._known.add(card)
            return False
        return True

    def leave_out_an_outlier(self, worker: Worker) -> bool:
        """Take a worker out of the study if its card is unlike the others; say whether it is."""
        if worker not in self._fleet.workers:
            return True
        if worker.card is None or worker in self._sound or len(self._fleet.workers) == 1:
            return False
        figures = self._figures()
        found = next((one.outlier for one in figures if one.card == worker.card), None)
        if found is None:
            if len(figures) >= len(self._fleet.workers):
                self._sound.add(worker)
            return False
        message = f"card {worker.card} is an outlier: {found}; the study goes on without it"
        self._store.add_event(self._name, "outlier", message)
        self._listener.note(message)
        self._fleet.leave_out(worker)
        return True

    async def measure(self, worker: Worker, patience: WorkersPatience) -> None:
        """Measure it on the search's traffic; what `patience` bears is no attempt."""
        default, card = self._default(), worker.card
        assert default is not None and card is not None
        run = self._plan.run_of(default.configuration)
        evaluation, _ = await self._repeats.measure(
            worker,
            default.number,
            ProbeKind.CARD,
            lambda repeat: worker.evaluator.probe(default.configuration, repeat, run),
            None,
        )
        if not patience.bears(worker, evaluation.result, default.number):
            self._attempts[card] = self._attempts.get(card, 0) + 1
        if isinstance(evaluation.result, Failure):
            self._listener.note(f"the default on card {card}: {evaluation.result.reason}")

    def _default(self) -> TrialRow | None:
        return baseline_of(self._store.trials(self._name))

    def _figures(self) -> list[CardFigures]:
        return card_figures(self._store.trials(self._name), self._store.repeats.probes(self._name))
