"""Recommendation: the least energy per unit of output among the trials that meet the SLO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tuner.analysis.cards.figures import CardFigures, card_figures, on_mean_card
from tuner.analysis.confirmed_front import ConfirmedFront, confirmed_front
from tuner.analysis.deployment.checks import DeploymentChecks, deployment_checks
from tuner.analysis.deployment.night_energy import night_energy_j
from tuner.analysis.knobs.contributions import KnobContribution, contributions
from tuner.analysis.load_text import is_open_loop, studied_load
from tuner.analysis.matching import candidates
from tuner.analysis.outcomes import emulated, energy_j, feasible, kind_of_study, metric, ratio
from tuner.analysis.recommendation.caveats import caveats
from tuner.analysis.recommendation.front_roles import Role, roles
from tuner.analysis.recommendation.infeasible import nothing_met
from tuner.analysis.recommendation.range_edges import edges
from tuner.analysis.tasks.levels import LevelEnergy, thinking_levels
from tuner.analysis.trial_summary import TrialSummary
from tuner.errors import NoFeasibleConfigurationError, UsageError
from tuner.measurement.statistics.unseen_traffic import LEVEL, SloVerdict
from tuner.slo import Slo
from tuner.store import Store
from tuner.store.rows import ProbeKind, RepeatKind, RepeatRow, StudyIdentity, TrialRow


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The configuration of least energy, what else is on the front, and the default beside it.

    Attributes:
        best: the recommended trial, or the one that was asked for.
        is_asked_for: whether `best` was named by the user instead of recommended.
        alternatives: the other members of the front.
        roles: which trial of the front is the fastest, of most throughput, the knee.
        contributions: what each knob of `best` does, by the search's windows.
        measured_at: the first begin and the last end of what `best`'s figures are made of.
    """

    study: StudyIdentity
    confirmed: ConfirmedFront
    slos: tuple[Slo, ...]
    best: TrialRow
    is_asked_for: bool
    alternatives: tuple[TrialRow, ...]
    roles: Mapping[Role, int]
    baseline: TrialRow | None
    contributions: tuple[KnobContribution, ...]
    measured_at: tuple[datetime, datetime | None]
    warnings: tuple[str, ...]
    other_studies: tuple[str, ...]
    probes: tuple[RepeatRow, ...] = ()  # and the repeats
    night_energy_j: float | None = None
    cards: tuple[CardFigures, ...] = ()  # of a study on several

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

    def checks_of(self, trial: TrialRow) -> DeploymentChecks:
        """Return what the probes say of a trial."""
        load = studied_load(self.study, self.best.configuration)
        return deployment_checks(self.probes, trial.number, self.slos, load)

    @property
    def pays_after_h(self) -> float | None:
        """After how many hours at the studied load the night's own energy is saved, h."""
        if self.night_energy_j is None or self.is_default:
            return None
        best_j, saving = energy_j(self.best), self.summary_of(self.best).saving_percent
        made_per_s = metric(self.best, kind_of_study(self.study).throughput)
        if best_j is None or saving is None or made_per_s is None or not 0.0 < saving < 100.0:
            return None
        default_j = best_j / (1.0 - saving / 100.0)  # on the same traffic
        return self.night_energy_j / ((default_j - best_j) * made_per_s) / 3600.0

    @property
    def levels(self) -> tuple[LevelEnergy, ...]:
        """What answers take at each level of thinking; none without that knob."""
        return thinking_levels(self.confirmed)

    def energy_per_correct_j(self, trial: TrialRow) -> float | None:
        """Return energy per request / share of right answers to the study's questions, J.

        Wrong answers cost energy too. None without questions, or with no right answer.
        """
        known = self.confirmed.confirmations.get(trial.number)
        share = None if known is None or known.quality is None else known.quality.ours.share
        return ratio(metric(trial, "energy_per_request_j"), share)

    def default_beside(self, name: str) -> float | None:
        """Return a metric of the default on the traffic of `best`, see `ConfirmedFront`."""
        return self.confirmed.default_beside(self.best, name)

    def summary_of(self, trial: TrialRow) -> TrialSummary:
        """Return the figures of a trial beside this default's."""
        return self.confirmed.summary(trial)


@dataclass(frozen=True, slots=True)
class StudyRows:
    """What a store holds of a study."""

    trials: list[TrialRow]
    repeats: list[RepeatRow]
    probes: list[RepeatRow]


def rows_of(store: Store, name: str) -> StudyRows:
    """Read the rows of a study."""
    trials, every = store.trials(name), store.repeats.every(name)
    repeats = [row for row in every if isinstance(row.kind, RepeatKind)]
    probes = [row for row in every if isinstance(row.kind, ProbeKind)]
    return StudyRows(trials, repeats, probes)


def recommend(
    store: Store,
    model: str | None = None,
    study: str | None = None,
    slos: Sequence[Slo] | None = None,
    trial: int | None = None,
    rows: StudyRows | None = None,
) -> Recommendation:
    """Return the recommendation of the newest study, of the model or the name, that has one.

    Finished studies come first. `slos` replace those of the study without new measurements;
    `trial` takes that one of the first study instead. `rows` are those of `study`, if they were
    read before. Raises `NoFeasibleConfigurationError` if nothing met the SLOs, `UsageError` for a
    name that matches nothing or a trial without a measurement.
    """
    chosen = candidates(store.identities(), model, study)
    sentences: list[str] = []
    for one in chosen:
        known = rows or rows_of(store, one.name)
        trials, repeats, probes = known.trials, known.repeats, known.probes
        found = confirmed_front(one, trials, repeats, slos, probes)
        figures = card_figures(trials, probes)
        even, searched = found, trials  # as if one card had measured every trial
        if figures:
            searched = on_mean_card(trials, figures)
            even = confirmed_front(one, searched, repeats, slos, probes)
        best = _as_measured(_best(even), found) if trial is None else _asked_for(found, trial)
        if best is None:
            sentences.append(nothing_met(one, trials, found.slos))
            continue
        return Recommendation(
            study=one,
            confirmed=found,
            slos=found.slos,
            best=best,
            is_asked_for=trial is not None,
            alternatives=tuple(t for t in found.front if t.number != best.number),
            roles=roles(
                found.front,
                one.objectives,
                is_open_loop=is_open_loop(one, best.configuration),
            ),
            baseline=found.baseline,
            contributions=_contributions(found, trials, best),
            measured_at=_measured_at(best, repeats, is_confirmed=best.number in _confirmed(found)),
            warnings=(
                *caveats(store, one, found, searched, best),
                *edges(best, trials, found.slos, found.baseline),
                *sentences,
            ),
            other_studies=tuple(other.name for other in chosen if other is not one),
            probes=(*repeats, *probes),
            night_energy_j=night_energy_j([*trials, *repeats, *probes]),
            cards=tuple(figures),
        )
    raise NoFeasibleConfigurationError(sentences[0])


def _contributions(
    found: ConfirmedFront, trials: Sequence[TrialRow], best: TrialRow
) -> tuple[KnobContribution, ...]:
    """Return what the knobs of the best trial do, nothing if there is no default to go back to."""
    if found.baseline is None or best.baseline:
        return ()
    return tuple(contributions(best, trials, found.slos, found.baseline.configuration))


def _best(found: ConfirmedFront) -> TrialRow | None:
    """Return the feasible trial of least energy; of equal ones, the first.

    One that surely meets the SLO goes before one of which that is uncertain, and of these one that
    seldom misses it before one that does more often. Of what cannot be told apart, the one that
    sets the fewest knobs goes before. Nothing that uses as much energy as the default is better
    than the default, repeated or not.
    """
    known = [
        (_doubt(found, t), e, t.number, t)
        for t in feasible(found.pool, found.slos)
        if (e := _expected_energy_j(found, t)) is not None
    ]
    first = min(known, key=lambda entry: entry[:3]) if known else None
    best = None
    if first is not None:
        equals = [e for e in known if e[0] == first[0] and _is_equal(found, e[3], first[3])]
        best = min(equals, key=lambda entry: (len(entry[3].configuration.knobs()), *entry[:3]))[3]
    default = _eligible_default(found)
    if default is None or best is None:
        return best or default
    ours, theirs = _expected_energy_j(found, best), energy_j(default)
    assert ours is not None and theirs is not None
    return default if theirs <= ours else best


def _is_equal(found: ConfirmedFront, trial: TrialRow, best: TrialRow) -> bool:
    """Say whether a trial's energy is within one standard error of the best.

    Both were compared with the default, by pairs. (Breiman et al., Classification and regression
    trees, 1984: the simplest within one standard error.)
    """
    if trial.number == best.number:
        return True
    ours, theirs = (found.confirmations.get(t.number) for t in (trial, best))
    if trial.baseline or ours is None or theirs is None:
        return False
    if ours.energy is None or theirs.energy is None:
        return False
    errors = ours.energy.log_error, theirs.energy.log_error
    if errors[0] is None or errors[1] is None:
        return False
    more = math.log1p(ours.energy.difference) - math.log1p(theirs.energy.difference)
    return more <= math.hypot(errors[0], errors[1])


def _as_measured(chosen: TrialRow | None, found: ConfirmedFront) -> TrialRow | None:
    """Return the chosen trial with its own figures."""
    return next((t for t in found.trials if chosen and t.number == chosen.number), None)


def _doubt(found: ConfirmedFront, trial: TrialRow) -> int:
    """Return 0 if the trial surely meets the SLO, as far as a front without repeats can say.

    Else it is 1, and 1 more each time that its chance to miss is twice what is allowed.
    """
    if not found.is_confirmed:
        return 0
    known = found.confirmations[trial.number]
    if known.slo is SloVerdict.MET or known.miss_chance is None:
        return int(known.slo is not SloVerdict.MET)
    doubled = math.log2(max(known.miss_chance, 1.0 - LEVEL) / (1.0 - LEVEL))
    return 1 + math.ceil(doubled)


def _expected_energy_j(found: ConfirmedFront, trial: TrialRow) -> float | None:
    """Return the energy per token, J: the default's times the ratio on the same traffic.

    Two means over different stretches of traffic cannot be compared.
    """
    default_j, known = energy_j(found.baseline), found.confirmations.get(trial.number)
    if trial.baseline or default_j is None or known is None or known.energy is None:
        return energy_j(trial)
    is_paired = known.is_confirmed or known.pairs > 0
    return default_j * (1.0 + known.energy.difference) if is_paired else energy_j(trial)


def _eligible_default(found: ConfirmedFront) -> TrialRow | None:
    """Return the default if it met the SLO, by its repeats or else by the search's window."""
    default = found.baseline
    if default is None or energy_j(default) is None or found.default_missed:
        return None
    return default


def _asked_for(found: ConfirmedFront, number: int) -> TrialRow:
    trial = next((t for t in found.trials if t.number == number), None)
    name = found.study.name
    if trial is None:
        raise UsageError(
            f"study '{name}' has no trial {number}; see its trials with `tuner show {name}`"
        )
    if trial.measurement is None or trial.failure is not None:
        why = "it has not ended" if trial.failure is None else trial.failure.reason
        raise UsageError(f"trial {number} of study '{name}' cannot be deployed: {why}")
    return trial


def _confirmed(found: ConfirmedFront) -> set[int]:
    return {number for number, known in found.confirmations.items() if known.is_confirmed}


def _measured_at(
    best: TrialRow, repeats: Sequence[RepeatRow], *, is_confirmed: bool
) -> tuple[datetime, datetime | None]:
    own = [r for r in repeats if r.trial == best.number and r.measurement is not None]
    if not is_confirmed or not own:
        return best.started_at, best.ended_at
    return min(r.started_at for r in own), max(r.ended_at or r.started_at for r in own)
