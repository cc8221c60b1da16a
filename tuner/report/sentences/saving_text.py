"""The headline of a recommendation, and how it was confirmed: worded here for every report."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.analysis.recommendation.recommend import Recommendation
from tuner.analysis.trial_summary import TrialSummary
from tuner.spec.stored import StoredSpec


@dataclass(frozen=True, slots=True)
class Headline:
    """A sentence of which one part stands out where a report has another type for it."""

    emphasised: str
    rest: str = ""

    def __str__(self) -> str:
        return f"{self.emphasised}{self.rest}"


def headline(r: Recommendation) -> Headline:
    """Return what the configuration saves beside the default, and whether that is but noise."""
    best, theirs = r.summary_of(r.best), StoredSpec.of(r.study).baseline_name
    saving = best.saving_percent
    if r.is_default:
        if r.is_asked_for:
            return Headline(theirs, " itself, as asked")
        return Headline(f"keep {theirs}", ": it uses the least energy of all that met the SLO")
    if saving is None:
        return Headline("saving unknown", f" (no energy of {theirs} to compare with)")
    amount = f"{abs(saving):.1f} % {'less' if saving >= 0 else 'more'} energy"
    missed = ", which misses the SLO" if r.confirmed.default_missed else ""
    if best.tied_with_default:
        return Headline(f"tied with {theirs}", f"{missed} ({amount} is within the noise)")
    return Headline(amount, f" per {best.kind.unit} than {theirs}{missed}")


def confirmation_text(shown: TrialSummary) -> str:
    """Return what the figures of a trial are of, with the interval of the saving if it is known."""
    if not shown.confirmed:
        return f"unconfirmed: each figure is of a single window of the search{_of_pairs(shown)}"
    text = f"confirmed by {shown.repeats} measurements beyond the search's own"
    interval = interval_text(shown)
    return text if interval is None else f"{text}; {interval}"


def beside_text(r: Recommendation) -> str | None:
    """Return of which windows the default's figures are; None if all are of the search's."""
    shown, default = r.summary_of(r.best), r.confirmed.default
    if r.is_default or r.baseline is None:
        return None
    if r.confirmed.is_beside_default(r.best):
        of = f"{shown.pairs} windows of the same traffic" if shown.confirmed else None
    elif default is not None and default.is_confirmed:
        of = f"its own {default.repeats} windows"
    else:
        of = "its window of the search"
    return None if of is None else f"the default's figures are of {of}"


def interval_text(shown: TrialSummary) -> str | None:
    """Return the interval of the saving; None if there is none."""
    if shown.saving_interval_percent is None:
        return None
    low, high = shown.saving_interval_percent
    return f"95 % interval of the saving {low:.1f} to {high:.1f} %"


def _of_pairs(shown: TrialSummary) -> str:
    """Return what the saving of an unconfirmed trial is of, if it was measured again."""
    if not shown.pairs or shown.saving_percent is None:
        return ""
    windows = "a window" if shown.pairs == 1 else f"{shown.pairs} windows"
    return f", but the saving is of {windows} beside the default on other traffic"
