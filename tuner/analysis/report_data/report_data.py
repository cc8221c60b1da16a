"""Report data: a stored study, its recommendation, and the raw windows of a few trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.analysis.confirmed_front import ConfirmedFront, confirmed_front
from tuner.analysis.outcomes import kind_of_study, metric
from tuner.analysis.recommendation.recommend import Recommendation, recommend, rows_of
from tuner.errors import NoFeasibleConfigurationError
from tuner.records import RawRun
from tuner.slo import Slo
from tuner.store import Store
from tuner.store.rows import EventRow, RepeatRow, StudyIdentity, TrialRow, TrialState


@dataclass(frozen=True, slots=True, eq=False)
class ChosenWindow:
    """The raw records of one window of a selected trial.

    `role` says why the trial was selected, `repeat` which of its repeats this is; None is the
    search's own window.
    """

    role: str
    trial: int
    repeat: int | None
    raw: RawRun


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows of one study.

    `searched` are the trials as the search measured them; in `confirmed` the repeats replace the
    trials that they confirm. `recommendation` is None if no trial met the SLO; `no_answer` then
    says so.
    """

    study: StudyIdentity
    confirmed: ConfirmedFront
    searched: tuple[TrialRow, ...]
    repeats: tuple[RepeatRow, ...]
    events: tuple[EventRow, ...]
    recommendation: Recommendation | None
    no_answer: str | None
    windows: tuple[ChosenWindow, ...]


def read_report_data(store: Store, name: str, slos: Sequence[Slo] | None = None) -> ReportData:
    """Read a study for its report; `slos` replace its own as in `recommend`.

    Raises `UsageError` if there is no such study.
    """
    study = store.study(name)
    rows = rows_of(store, name)
    searched, repeats = rows.trials, rows.repeats
    found = confirmed_front(study, searched, repeats, slos, rows.probes)
    recommendation, no_answer = None, None
    try:
        recommendation = recommend(store, study=name, slos=slos, rows=rows)
    except NoFeasibleConfigurationError as error:
        no_answer = str(error)
    chosen = _chosen(found, None if recommendation is None else recommendation.best)
    windows = [_window(store, name, role, trial, repeats) for role, trial in chosen]
    return ReportData(
        study=study,
        confirmed=found,
        searched=tuple(searched),
        repeats=tuple(repeats),
        events=tuple(store.events(name)),
        recommendation=recommendation,
        no_answer=no_answer,
        windows=tuple(w for w in windows if w is not None),
    )


def _chosen(found: ConfirmedFront, best: TrialRow | None) -> list[tuple[str, TrialRow]]:
    """Return the default, the recommended trial, and the fastest other one on the front."""
    latency = kind_of_study(found.study).columns[0]
    chosen = {} if found.baseline is None else {found.baseline.number: ("default", found.baseline)}
    if best is not None:
        chosen.setdefault(best.number, ("recommended", best))
    fast = [
        (ms, t.number, t)
        for t in found.front
        if t.number not in chosen and (ms := metric(t, latency)) is not None
    ]
    if fast:
        fastest = min(fast, key=lambda entry: entry[:2])[2]
        chosen[fastest.number] = ("fastest other", fastest)
    return list(chosen.values())


def _window(
    store: Store, study: str, role: str, trial: TrialRow, repeats: Sequence[RepeatRow]
) -> ChosenWindow | None:
    """Return the last repeat's window, whose server had exactly its flags, or else the search's."""
    own = [r for r in repeats if r.trial == trial.number and r.state is TrialState.MEASURED]
    for repeat in reversed(own):
        raw = store.repeats.raw_run(study, repeat.number)
        if raw is not None:
            return ChosenWindow(role, trial.number, repeat.number, raw)
    raw = store.raw_run(study, trial.number)
    return None if raw is None else ChosenWindow(role, trial.number, None, raw)
