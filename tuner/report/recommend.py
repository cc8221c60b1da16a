"""The configuration to deploy: the least energy per output token among those that meet the SLO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.errors import NoFeasibleConfigurationError
from tuner.report.confirmed import Standing, confirmation_notes, standing
from tuner.report.figures import Figures, figures
from tuner.report.infeasible import nothing_met
from tuner.report.matching import candidates
from tuner.report.trials import (
    ENERGY,
    emulated,
    feasible,
    measured,
    meets_slo,
    metric,
)
from tuner.slo import Slo
from tuner.store import Store
from tuner.store.rows import StudyIdentity, StudySummary, TrialRow
from tuner.study.confirmation import SloVerdict

_BY_OWN_SLO = ("goodput_req_s", "slo_attainment")


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The configuration of least energy, what else is on the front, and the default beside it."""

    study: StudyIdentity
    standing: Standing
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
        return figures(trial, self.baseline, self.slos, self.standing.known.get(trial.number))


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
        repeats = store.repeats.of(summary.identity.name)
        found = standing(summary.identity, trials, repeats, slos)
        bounds = found.slos
        best = _best(found)
        if best is None:
            sentences.append(nothing_met(summary.identity, trials, bounds))
            continue
        return Recommendation(
            study=summary.identity,
            standing=found,
            slos=bounds,
            best=best,
            alternatives=tuple(t for t in found.front if t.number != best.number),
            baseline=found.baseline,
            warnings=(*_warnings(summary, found, best), *sentences),
            other_studies=tuple(s.identity.name for s in chosen if s is not summary),
        )
    raise NoFeasibleConfigurationError(sentences[0])


def _best(found: Standing) -> TrialRow | None:
    """Return the feasible trial of least energy; of equal ones, the first.

    One that surely meets the SLO goes before one of which that is uncertain.
    """
    known = [
        (found.is_confirmed and found.known[t.number].slo is not SloVerdict.MET, e, t.number, t)
        for t in feasible(found.pool, found.slos)
        if (e := metric(t, ENERGY)) is not None
    ]
    return min(known, key=lambda entry: entry[:3])[3] if known else None


def _warnings(summary: StudySummary, standing: Standing, best: TrialRow) -> list[str]:
    """Return what a reader has to know before deploying."""
    study, slos, trials = summary.identity, standing.slos, standing.trials
    found = [f"{what} is emulated, not measured" for what in emulated(study, measured(trials))]
    found += confirmation_notes(standing)
    found += [w for t in standing.front if (w := standing.outputs_warning(t)) is not None]
    if not summary.is_finished:
        found.append(
            f"the study is not finished ({summary.measured + summary.failed} trials ended, "
            f"{summary.running} running); go on with `tuner resume {study.name}`"
        )
    if any(slo.metric in _BY_OWN_SLO and str(slo) not in study.slos for slo in slos):
        found.append(f"goodput was counted by the SLO of the study: {', '.join(study.slos)}")
    found += _warnings_of_default(standing.baseline, slos, best)
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
