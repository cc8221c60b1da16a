"""Studies side by side: what each recommends, and how it differs from the first one's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.analysis.confirmed_front import ConfirmedFront, confirmed_front
from tuner.analysis.load_text import resolved_load_text
from tuner.analysis.outcomes import emulated, measured, metric
from tuner.analysis.recommendation.recommend import recommend
from tuner.analysis.trial_summary import TrialSummary
from tuner.configuration import Configuration
from tuner.errors import NoFeasibleConfigurationError
from tuner.metrics import kind_of
from tuner.spec.stored import StoredSpec
from tuner.store import Store
from tuner.store.rows import StudyIdentity, TrialRow

_CARD_TO_CARD_PERCENT = 10  # power of two cards of one host on the same work: docs/h200.md


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric's value and its 95 % interval, None where it was not measured again."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ComparedStudy:
    """One study: what it measured, what it recommends, and its default beside it.

    `best` is None where nothing met the SLO; `why_none` says so. `load` is in words.
    """

    identity: StudyIdentity
    load: str
    baseline_name: str
    emulated: tuple[str, ...]
    best: TrialSummary | None
    best_metrics: dict[str, Figure]
    default: TrialSummary | None
    default_metrics: dict[str, Figure]
    why_none: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more of a metric a study has than the first one, in percent of the first one's.

    `of` is `recommended` or `default`. The interval is the 95 % one of two independent means; it is
    None unless both were measured again.
    """

    of: str
    metric: str
    percent: float
    interval_percent: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Several studies. `differences` has one entry for each study after the first."""

    studies: tuple[ComparedStudy, ...]
    differences: tuple[tuple[Difference, ...], ...]
    notes: tuple[str, ...]


def compared_study(store: Store, name: str) -> ComparedStudy:
    """Return a study's side of the comparison; raises `UsageError` for an unknown one."""
    identity = store.study(name)
    trials, repeats = store.trials(name), store.repeats.of(name)
    best: TrialRow | None = None
    why_none: str | None = None
    try:
        found = recommend(store, study=name)
        best, confirmed = found.best, found.confirmed
    except NoFeasibleConfigurationError as error:
        why_none = str(error)
        confirmed = confirmed_front(identity, trials, repeats)
    configuration = Configuration() if best is None else best.configuration
    return ComparedStudy(
        identity=identity,
        load=resolved_load_text(identity, configuration),
        baseline_name=StoredSpec.of(identity).baseline_name,
        emulated=emulated(identity, measured(trials)),
        best=None if best is None else confirmed.summary(best),
        best_metrics=_figures(confirmed, best),
        default=None if confirmed.baseline is None else confirmed.summary(confirmed.baseline),
        default_metrics=_figures(confirmed, confirmed.baseline),
        why_none=why_none,
    )


def side_by_side(studies: Sequence[ComparedStudy]) -> SideBySide:
    """Return studies with what differs from the first; there is at least one."""
    first, *others = studies
    return SideBySide(
        tuple(studies),
        tuple(tuple(_differences(first, other)) for other in others),
        tuple(_notes(studies)),
    )


def _figures(found: ConfirmedFront, trial: TrialRow | None) -> dict[str, Figure]:
    if trial is None or trial.measurement is None:
        return {}
    intervals = found.summary(trial).intervals
    kind = kind_of(trial.measurement.metrics)
    energies = (kind.energy, "energy_per_request_j")
    names = (*energies, *kind.columns, kind.throughput, "mean_power_w")
    return {
        name: Figure(value, intervals.get(name))
        for name in names
        if (value := metric(trial, name)) is not None
    }


def _differences(first: ComparedStudy, other: ComparedStudy) -> list[Difference]:
    sides = (
        ("recommended", first.best_metrics, other.best_metrics),
        ("default", first.default_metrics, other.default_metrics),
    )
    return [
        _difference(of, name, theirs[name], ours[name])
        for of, theirs, ours in sides
        for name in theirs
        if name in ours and theirs[name].value > 0.0 and ours[name].value > 0.0
    ]


def _difference(of: str, name: str, base: Figure, other: Figure) -> Difference:
    """Return 100 (b / a - 1) with its interval.

    On the logarithm a ratio is a difference of independent means, whose half intervals add in
    squares.
    """
    ratio = other.value / base.value
    halves = [_half_of_log(figure) for figure in (base, other)]
    interval = None
    if all(half is not None for half in halves):
        half = math.hypot(*(h for h in halves if h is not None))
        interval = (100.0 * (ratio * math.exp(-half) - 1.0), 100.0 * (ratio * math.exp(half) - 1.0))
    return Difference(of, name, 100.0 * (ratio - 1.0), interval)


def _half_of_log(figure: Figure) -> float | None:
    if figure.interval is None or figure.interval[0] <= 0.0:
        return None
    low, high = figure.interval
    return (math.log(high) - math.log(low)) / 2.0


def _notes(studies: Sequence[ComparedStudy]) -> list[str]:
    """Return what a reader has to know before comparing."""
    notes = []
    kinds = {study.emulated for study in studies}
    if len(kinds) > 1:
        notes.append("some figures are emulated and others measured: compare them with care")
    identities = [study.identity for study in studies]
    if len({(i.workload_sha256, s.load) for i, s in zip(identities, studies, strict=True)}) > 1:
        notes.append(
            "the requests or the load differ: energy per token depends on both, and the savings "
            "compare better than the energies"
        )
    if len({i.slos for i in identities}) > 1:
        notes.append("the SLOs differ: a looser one allows more savings")
    cards = {i.gpu_uuids for i in identities}
    if len({i.gpu for i in identities}) == 1 and len(cards) > 1:
        notes.append(
            "they ran on different cards, which may differ by about "
            f"{_CARD_TO_CARD_PERCENT} % in power on the same work; no interval here holds that"
        )
    if any(study.best is not None and not study.best.confirmed for study in studies):
        notes.append("a figure without an interval is of one window: it was not confirmed")
    return notes
