"""The configuration to deploy: the least energy per output token among those that meet the SLO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.errors import NoFeasibleConfigurationError
from tuner.report.figures import Figures, figures
from tuner.report.infeasible import nothing_met
from tuner.report.matching import candidates
from tuner.report.trials import (
    ENERGY,
    baseline_of,
    emulated,
    feasible,
    front,
    measured,
    meets_slo,
    metric,
    slos_of,
)
from tuner.slo import Slo
from tuner.store import Store
from tuner.store.rows import StudyIdentity, StudySummary, TrialRow

_BY_OWN_SLO = ("goodput_req_s", "slo_attainment")


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The configuration of least energy, what else is on the front, and the default beside it."""

    study: StudyIdentity
    slos: tuple[Slo, ...]
    best: TrialRow
    alternatives: tuple[TrialRow, ...]
    baseline: TrialRow | None
    warnings: tuple[str, ...]
    other_studies: tuple[str, ...]

    @property
    def is_default(self) -> bool:
        """Whether the best configuration is vLLM's default itself."""
        default = self.baseline
        return self.best.baseline or (
            default is not None and self.best.configuration == default.configuration
        )

    @property
    def emulated(self) -> tuple[str, ...]:
        """Which of energy and latency are emulated."""
        default = () if self.baseline is None else (self.baseline,)
        return emulated(self.study, (self.best, *self.alternatives, *default))

    def figures_of(self, trial: TrialRow) -> Figures:
        """Return the figures of a trial beside this default's."""
        return figures(trial, self.baseline, self.slos)


def recommend(
    store: Store,
    model: str | None = None,
    study: str | None = None,
    slos: Sequence[Slo] | None = None,
) -> Recommendation:
    """Return the recommendation of the newest study, of the model or the name, that has one.

    Finished studies come first. `slos` replace those of the study without measuring anew. Raises
    `NoFeasibleConfigurationError` if nothing met them, `UsageError` for a name that means none.
    """
    chosen = candidates(store.studies(), model, study)
    sentences: list[str] = []
    for summary in chosen:
        trials = store.trials(summary.identity.name)
        bounds = slos_of(summary.identity, slos)
        best = _best(trials, bounds)
        if best is None:
            sentences.append(nothing_met(summary.identity, trials, bounds))
            continue
        on_front = front(summary.identity, trials, bounds)
        return Recommendation(
            study=summary.identity,
            slos=bounds,
            best=best,
            alternatives=tuple(t for t in on_front if t.number != best.number),
            baseline=baseline_of(trials),
            warnings=(*_warnings(summary, trials, bounds, best), *sentences),
            other_studies=tuple(s.identity.name for s in chosen if s is not summary),
        )
    raise NoFeasibleConfigurationError(sentences[0])


def _best(trials: Sequence[TrialRow], slos: Sequence[Slo]) -> TrialRow | None:
    """Return the feasible trial of least energy; of equal ones, the first."""
    known = [(e, t) for t in feasible(trials, slos) if (e := metric(t, ENERGY)) is not None]
    return min(known, key=lambda pair: (pair[0], pair[1].number))[1] if known else None


def _warnings(
    summary: StudySummary, trials: Sequence[TrialRow], slos: Sequence[Slo], best: TrialRow
) -> list[str]:
    """Return what a reader has to know before deploying."""
    study = summary.identity
    found = [f"{what} is emulated, not measured" for what in emulated(study, measured(trials))]
    same = [t for t in measured(trials) if t.configuration == best.configuration]
    if len(same) == 1:
        found.append("measured in a single window, not confirmed by a second one")
    if not summary.is_finished:
        found.append(
            f"the study is not finished ({summary.measured + summary.failed} trials ended, "
            f"{summary.running} running); go on with `tuner resume {study.name}`"
        )
    if any(slo.metric in _BY_OWN_SLO and str(slo) not in study.slos for slo in slos):
        found.append(f"goodput was counted by the SLO of the study: {', '.join(study.slos)}")
    found += _warnings_of_default(baseline_of(trials), slos, best)
    return found + list(best.warnings)


def _warnings_of_default(
    baseline: TrialRow | None, slos: Sequence[Slo], best: TrialRow
) -> list[str]:
    if baseline is None or meets_slo(baseline, slos) is None:
        reason = "" if baseline is None or baseline.failure is None else baseline.failure.reason
        return [f"the default was not measured{': ' if reason else ''}{reason}"]
    found = []
    if not meets_slo(baseline, slos):
        found.append("the default itself does not meet the SLO")
    if dict(baseline.configuration.load) != dict(best.configuration.load):
        found.append("the default was measured at another load than this configuration")
    return found
