"""Confirmed front: the Pareto front of confirmed trials, or of the search if none is confirmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.analysis.deployment.checks import unfit_trials
from tuner.analysis.outcomes import (
    baseline_of,
    feasible,
    finished_requests,
    front,
    kind_of_study,
    metric,
    point_of,
    slos_of,
)
from tuner.analysis.trial_summary import TrialSummary, trial_summary
from tuner.analysis.verdicts import Confirmation, as_confirmed, confirmations
from tuner.measurement.outputs import clearly_below
from tuner.measurement.statistics.unseen_traffic import LEAST_WINDOWS, SloVerdict
from tuner.pictures import mean_ssim
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.spec.stored import StoredSpec
from tuner.store.rows import RepeatKind, RepeatRow, StudyIdentity, TrialRow


@dataclass(frozen=True, slots=True)
class ConfirmedFront:
    """A study's trials after its repeats, under some SLOs.

    Attributes:
        trials: all trials; a confirmed one has the repeats' result instead of the search's.
        baseline: the default's trial, None if there is none.
        pool: candidates for the recommendation: confirmed trials, or the search's if none is.
        front: the Pareto front of the pool.
        confirmations: the verdict of the repeats of each trial.
        is_confirmed: whether the pool holds confirmed trials only.
        unconfirmed: on the search's front, neither confirmed nor dropped.
        dropped: on the search's front, rejected by the repeats.
        requests: how many finished requests the figures of each trial are made of.
        unfit: why a trial may not be deployed, by the probes at the end of the study.
    """

    study: StudyIdentity
    slos: tuple[Slo, ...]
    trials: tuple[TrialRow, ...]
    baseline: TrialRow | None
    pool: tuple[TrialRow, ...]
    front: tuple[TrialRow, ...]
    confirmations: Mapping[int, Confirmation]
    is_confirmed: bool
    unconfirmed: tuple[int, ...]
    dropped: tuple[int, ...]
    requests: Mapping[int, int]
    unfit: Mapping[int, str]

    def summary(self, trial: TrialRow) -> TrialSummary:
        """Return the figures of a trial beside the default's, as all reports show them."""
        return trial_summary(
            trial,
            self.baseline,
            self.slos,
            self.confirmations.get(trial.number),
            self.requests.get(trial.number),
        )

    def is_beside_default(self, trial: TrialRow) -> bool:
        """Whether the default was measured on the same traffic as a trial's figures are of.

        In the search it is. Repeats are compared by the stretches that both were measured on.
        """
        known = self.confirmations.get(trial.number)
        if known is not None and known.is_confirmed:
            return known.pairs > 0
        return self.default is None or not self.default.is_confirmed

    def default_beside(self, trial: TrialRow, name: str) -> float | None:
        """Return a metric of the default on a trial's traffic, or else by its own row; maybe None.

        The energy is the one that the saving is of.
        """
        known, theirs = self.confirmations.get(trial.number), metric(self.baseline, name)
        if trial.baseline or known is None or not known.is_confirmed or not known.pairs:
            return theirs
        ours, change = metric(trial, name), known.changes.get(name)
        if known.energy is not None and name == kind_of_study(self.study).energy:
            change = known.energy.difference
        return None if ours is None or change is None else ours / (1.0 + change)

    @property
    def default(self) -> Confirmation | None:
        """The verdict of the default's repeats."""
        return None if self.baseline is None else self.confirmations.get(self.baseline.number)

    @property
    def default_missed(self) -> bool:
        """Whether the default misses the SLO, by its repeats or else by the search's window."""
        if self.default is not None and self.default.is_dropped:
            return True
        return self.baseline is not None and not feasible([self.baseline], self.slos)

    def outputs(self, trial: TrialRow) -> str:
        """Return, in words, how far a trial's outputs agree with the default's."""
        if self.study.evaluation == "virtual":
            return "emulated: outputs not compared"
        found = self.confirmations.get(trial.number)
        ours = None if found is None else found.agreement
        theirs = None if self.default is None else self.default.agreement
        if found is not None and found.quality is not None:
            return str(found.quality)
        if found is not None and found.pictures:
            return _pictures_text(found)
        if ours is None or theirs is None:
            return "outputs not compared"
        return (
            f"same outputs: {100.0 * ours.identical:.0f} % "
            f"(default with itself: {100.0 * theirs.identical:.0f} %)"
        )

    def outputs_warning(self, trial: TrialRow) -> str | None:
        """Return the warning if a trial's answers differ from the default's."""
        found = self.confirmations.get(trial.number)
        ours = None if found is None else found.agreement
        theirs = None if self.default is None else self.default.agreement
        if ours is None or theirs is None or not clearly_below(ours, theirs):
            return None
        return (
            f"trial {trial.number} changes what the model says ({self.outputs(trial)}); compare "
            "its answers on a task of yours before deploying it"
        )


def _pictures_text(found: Confirmation) -> str:
    """Return how much a trial's pictures resemble the default's of the same prompts and seeds."""
    count, least_db = len(found.pictures), min(one.psnr_db for one in found.pictures)
    what = "video" if any(one.frames > 1 for one in found.pictures) else "picture"
    what += "" if count == 1 else "s"
    return (
        f"{count} {what} beside the default's of the same seeds: mean SSIM "
        f"{mean_ssim(found.pictures):.3f} (the default's own on another launch "
        f"{found.own_ssim:.3f}), PSNR from {least_db:.0f} dB"
    )


def confirmed_front(
    study: StudyIdentity,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    slos: Sequence[Slo] | None = None,
    probes: Sequence[RepeatRow] = (),
) -> ConfirmedFront:
    """Return the confirmed front under the study's SLOs, overridden by `slos` if given.

    A trial that the `probes` found unfit is not on it, see `tuner.analysis.deployment.checks`.
    """
    bounds = slos_of(study, slos)
    asked = StoredSpec.of(study)
    known = confirmations(trials, repeats, bounds, asked.quality_drop, asked.picture_drop)
    dropped = {number for number, found in known.items() if found.is_dropped}
    rows = tuple(as_confirmed(t, known) for t in trials)
    unfit = unfit_trials(study, [*repeats, *probes], bounds)
    left = [t for t in rows if t.number not in dropped and t.number not in unfit]
    confirmed = [t for t in left if t.number in known and known[t.number].is_confirmed]
    members = {r.trial for r in repeats if r.kind is RepeatKind.CONFIRMATION}
    is_confirmed = bool(feasible(confirmed, bounds)) and bool(
        members & {t.number for t in confirmed}
        or any(_is_repeated_alone(t, known) for t in confirmed)
        or all(t.baseline for t in front(study, left, slos))
    )
    pool = tuple(confirmed if is_confirmed else left)
    searched = {t.number for t in front(study, left, slos)} - set(unfit)
    before = {t.number for t in front(study, trials, slos)}
    return ConfirmedFront(
        study=study,
        slos=bounds,
        trials=rows,
        baseline=baseline_of(rows),
        pool=pool,
        front=_front(study, pool, known, slos),
        confirmations=known,
        is_confirmed=is_confirmed,
        unconfirmed=tuple(sorted(searched - {t.number for t in confirmed})),
        dropped=tuple(sorted(before & dropped)),
        requests=_requests(rows, repeats, known),
        unfit=unfit,
    )


def _is_repeated_alone(trial: TrialRow, known: Mapping[int, Confirmation]) -> bool:
    """Say whether it is the default, repeated as it is where nothing promises to beat it."""
    return trial.baseline and known[trial.number].repeats >= LEAST_WINDOWS


def _requests(
    trials: Sequence[TrialRow], repeats: Sequence[RepeatRow], known: Mapping[int, Confirmation]
) -> dict[int, int]:
    """Return the finished requests behind each trial's figures: of its repeats, if confirmed."""
    found: dict[int, int] = {}
    for trial in trials:
        own = known.get(trial.number)
        is_repeated = own is not None and own.stands_for(is_default=trial.baseline)
        rows = [r for r in repeats if r.trial == trial.number] if is_repeated else [trial]
        counts = [finished_requests(r.measurement) for r in rows if r.measurement is not None]
        present = [count for count in counts if count is not None]
        if present and len(present) == len(counts):
            found[trial.number] = sum(present)
    return found


def _why_dropped(found: ConfirmedFront, number: int) -> str:
    verdict = found.confirmations[number]
    if verdict.fault is not None:
        return f"measured again, it failed ({verdict.fault})"
    if verdict.loses_quality and verdict.pictures:
        return f"it changes the pictures too much: {_pictures_text(verdict)}"
    if verdict.loses_quality:
        return f"it answers fewer questions right: {verdict.quality}"
    return "measured again, it missed the SLO"


def _front(
    study: StudyIdentity,
    pool: Sequence[TrialRow],
    known: Mapping[int, Confirmation],
    slos: Sequence[Slo] | None,
) -> tuple[TrialRow, ...]:
    """Return the pool's front, and that of those that surely meet the SLOs.

    What may miss an SLO on other traffic beats nothing that does not. Both were measured on
    different stretches, too.
    """
    sure = [
        t
        for t in pool
        if (found := known.get(t.number)) is not None
        and found.is_unseen
        and found.slo is SloVerdict.MET
    ]
    members = {t.number: t for t in (*front(study, pool, slos), *front(study, sure, slos))}
    first = Objective.parse(study.objectives[0])
    return tuple(sorted(members.values(), key=lambda t: point_of(t, [first]) or ()))


def how_to_confirm(study: StudyIdentity) -> str:
    """Return the command that confirms a study's front."""
    flag = "" if StoredSpec.of(study).confirms else " --confirm"
    return f"`tuner resume {study.name}{flag}`"


def confirmation_notes(found: ConfirmedFront) -> list[str]:
    """Return the notes on a front's confirmation that its reader needs."""
    notes = []
    if found.front and not found.is_confirmed:
        notes.append(
            "unconfirmed: each figure is of a single window of the search; "
            f"{how_to_confirm(found.study)} measures the front again, on other traffic"
        )
    elif found.unconfirmed:
        first, *more = found.unconfirmed
        which = f"{1 + len(more)} trials" if more else f"trial {first}"
        notes.append(f"not confirmed, so not shown: {which} on the front of the search")
    notes += [f"trial {number} is off the front: {why}" for number, why in found.unfit.items()]
    notes += [f"trial {n} is off the front: {_why_dropped(found, n)}" for n in found.dropped]
    uncertain = [
        t.number
        for t in found.front
        if found.is_confirmed and found.confirmations[t.number].slo is SloVerdict.UNCERTAIN
    ]
    if uncertain:
        numbers = ", ".join(map(str, uncertain))
        notes.append(
            f"unsure whether the SLO is met in 95 of 100 windows on other traffic: trial {numbers}"
        )
    drift = found.default.energy.drift if found.default and found.default.energy else None
    if drift is not None and drift.seen and drift.change is not None:
        notes.append(
            f"the default itself drifted by {100.0 * drift.change:+.1f} % over its repeats; the "
            "savings have that taken out"
        )
    return notes
