"""Early question: stop after the baseline's measurement if the request looks like a mistake."""

from __future__ import annotations

from tuner.analysis.baseline_doubts import doubts
from tuner.analysis.outcomes import baseline_of
from tuner.configuration import OFFERED_KNOBS
from tuner.errors import DoubtfulRequestError
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import StudySpec
from tuner.store import Store


class EarlyQuestion:
    """Asks whether a study is meant as it was written, once its baseline is measured."""

    def __init__(self, name: str, spec: StudySpec, space: SearchSpace, store: Store) -> None:
        self._name = name
        self._spec = spec
        # with another load in each trial, the baseline's says little about the rest
        self._asks = not any(name in OFFERED_KNOBS for _, name, _ in space.knobs())
        self._store = store

    def require_no_doubt(self) -> None:
        """Raise `DoubtfulRequestError` if the baseline speaks against the request.

        A study that has begun to search was answered before, and is never stopped.
        """
        trials = self._store.trials(self._name) if self._asks else []
        baseline = baseline_of(trials)
        if baseline is None or any(not trial.baseline for trial in trials):
            return
        if found := doubts(baseline, self._spec.slos):
            raise DoubtfulRequestError(
                f"{'; '.join(found)}; start a corrected study, or go on with this one by "
                f"`tuner resume {self._name} --yes`"
            )
