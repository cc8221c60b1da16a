"""Verdicts: which trials the repeats confirm, and how much energy they save."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tuner.analysis.monotonic_times import steady_starts
from tuner.analysis.outcomes import ENERGY, baseline_of
from tuner.measurement.outputs import Agreement, agreement
from tuner.measurement.statistics.compare import (
    Comparison,
    Estimate,
    Repeat,
    Verdict,
    compare,
    pooled_estimates,
)
from tuner.metrics import Direction
from tuner.records import FailureKind
from tuner.slo import Slo
from tuner.store import Answers, RepeatRow, TrialRow

LEAST_REPEATS = 2
_STRICTER = 2.576 / 1.960  # half of the 99 % interval of a normal variable by that of 95 %
_NARROW = 0.01  # half the interval of the saving: a tie that is worth no further repeat


class SloVerdict(StrEnum):
    """Whether the repeats of a configuration meet every SLO."""

    MET = "met"
    UNCERTAIN = "uncertain"  # the estimate does, the end of its interval does not
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The verdict of the repeats of one trial's configuration.

    Attributes:
        repeats: how many were measured.
        estimates: of each metric that every repeat has.
        slo: by the estimates and their intervals.
        energy: its energy per output token against the default's; None without repeats of that.
        agreement: of its answers to the probe prompts with the default's.
        fault: why the configuration did not work when it was repeated.
        warnings: of its repeats, each once.
    """

    trial: int
    repeats: int
    estimates: Mapping[str, Estimate]
    slo: SloVerdict
    energy: Comparison | None
    agreement: Agreement | None
    fault: str | None
    warnings: tuple[str, ...] = ()

    @property
    def is_confirmed(self) -> bool:
        """Whether it may be recommended."""
        return self.repeats >= LEAST_REPEATS and not self.is_dropped

    @property
    def is_dropped(self) -> bool:
        """Whether the repeats reject the search's result."""
        return self.fault is not None or self.slo is SloVerdict.MISSED

    def is_decided(self, most_repeats: int) -> bool:
        """Say whether another repeat could not change the verdict."""
        if self.is_dropped or self.repeats >= most_repeats:
            return True
        if self.repeats < LEAST_REPEATS or self.slo is SloVerdict.UNCERTAIN:
            return False
        if self.energy is None or self.energy.interval is None:
            return self.energy is None
        if self.energy.verdict is Verdict.TIED:
            return self.energy.interval.half_width <= _NARROW
        return True


def confirmations(
    trials: Sequence[TrialRow], repeats: Iterable[RepeatRow], slos: Sequence[Slo]
) -> dict[int, Confirmation]:
    """Return the verdict on every repeated trial, including the default."""
    by_trial: dict[int, list[RepeatRow]] = {}
    for repeat in _steadily(repeats):
        if repeat.measurement is not None or repeat.failure is not None:
            by_trial.setdefault(repeat.trial, []).append(repeat)
    baseline = baseline_of(trials)
    theirs = [] if baseline is None else _measured(by_trial.get(baseline.number, []))
    estimates = _estimates({number: _measured(rows) for number, rows in by_trial.items()})
    return {
        number: _confirmation(number, rows, estimates[number], theirs, slos)
        for number, rows in by_trial.items()
    }


def as_confirmed(trial: TrialRow, known: Mapping[int, Confirmation]) -> TrialRow:
    """Return the trial with its repeats in place of what the search measured, if confirmed.

    It also takes their warnings, because those of the search's window do not apply to them.
    """
    found = known.get(trial.number)
    if found is None or not found.is_confirmed or trial.measurement is None:
        return trial
    means = {name: estimate.mean for name, estimate in found.estimates.items()}
    measurement = replace(trial.measurement, metrics=means)
    return replace(trial, measurement=measurement, warnings=found.warnings)


def _steadily(repeats: Iterable[RepeatRow]) -> list[RepeatRow]:
    """Return the repeats as they ran: the drift between them is taken out by their times."""
    rows = sorted(repeats, key=lambda r: r.number)
    starts = steady_starts(rows)
    return [replace(row, started_at=at) for row, at in zip(rows, starts, strict=True)]


def _measured(rows: Iterable[RepeatRow]) -> list[RepeatRow]:
    return [r for r in rows if r.measurement is not None and r.failure is None]


def _estimates(groups: Mapping[int, Sequence[RepeatRow]]) -> dict[int, dict[str, Estimate]]:
    """Return the estimates of each metric, with the spread of a run pooled over the groups."""
    found: dict[int, dict[str, Estimate]] = {number: {} for number in groups}
    metrics = {
        n: [r.measurement.metrics for r in rows if r.measurement is not None]
        for n, rows in groups.items()
    }
    names = dict.fromkeys(name for rows in metrics.values() for row in rows for name in row)
    for name in names:
        having = {n: rows for n, rows in metrics.items() if rows and all(name in r for r in rows)}
        pooled = pooled_estimates([[r[name] for r in rows] for rows in having.values()])
        for number, estimate in zip(having, pooled, strict=True):
            found[number][name] = estimate
    return found


def _confirmation(
    number: int,
    rows: Sequence[RepeatRow],
    estimates: Mapping[str, Estimate],
    theirs: Sequence[RepeatRow],
    slos: Sequence[Slo],
) -> Confirmation:
    ours = _measured(rows)
    return Confirmation(
        trial=number,
        repeats=len(ours),
        estimates=estimates,
        slo=_slo_verdict(estimates, slos),
        energy=_against(ours, theirs),
        agreement=_agreement(ours, theirs),
        fault=_fault(rows),
        warnings=tuple(dict.fromkeys(warning for row in ours for warning in row.warnings)),
    )


def _fault(rows: Sequence[RepeatRow]) -> str | None:
    """Return why the configuration does not work; dying once may be the machine's fault."""
    failures = [r.failure for r in rows if r.failure is not None]
    own = [f.reason for f in failures if f.kind is FailureKind.CONFIGURATION]
    died = [f.reason for f in failures if f.kind is FailureKind.UNSTABLE]
    return next(iter([*own, *died[1:]]), None)


def _slo_verdict(estimates: Mapping[str, Estimate], slos: Sequence[Slo]) -> SloVerdict:
    certain = True
    for slo in slos:
        found = estimates.get(slo.metric)
        if found is None:
            certain = False  # nothing was measured of it yet
        elif _missed(slo, found):
            return SloVerdict.MISSED
        elif found.interval is None or slo.violation(_surely(slo, found)) > 0.0:
            certain = False
    return SloVerdict.MET if certain else SloVerdict.UNCERTAIN


def _missed(slo: Slo, found: Estimate) -> bool:
    """Say whether the SLO is missed; of a single run only if its whole interval is beyond."""
    if found.repeats >= LEAST_REPEATS:
        return slo.violation(found.mean) > 0.0
    if found.interval is None:
        return False
    better = found.interval.low if slo.direction is Direction.MIN else found.interval.high
    return slo.violation(better) > 0.0


def _surely(slo: Slo, found: Estimate) -> float:
    """Return the worse end of the 99 % interval; it is even in logs.

    95 % is not enough: the best-looking of many are selected, and doubtful ones are repeated.
    """
    assert found.interval is not None
    is_min = slo.direction is Direction.MIN
    end = found.interval.high if is_min else found.interval.low
    if end <= 0.0 or found.mean <= 0.0:
        return end
    return found.mean * math.exp(_STRICTER * math.log(end / found.mean))


def _against(ours: Sequence[RepeatRow], theirs: Sequence[RepeatRow]) -> Comparison | None:
    runs, baseline = _energies(ours), _energies(theirs)
    return compare(ENERGY, runs, baseline) if runs and baseline else None


def _energies(rows: Sequence[RepeatRow]) -> list[Repeat]:
    return [
        Repeat(r.started_at.timestamp(), r.measurement.metrics[ENERGY])
        for r in rows
        if r.measurement is not None and r.measurement.metrics.get(ENERGY, 0.0) > 0.0
    ]


def _agreement(ours: Sequence[RepeatRow], theirs: Sequence[RepeatRow]) -> Agreement | None:
    """Return the agreement of every two launches of which one is the default's."""
    mine = {r.number: r.answers for r in ours if r.answers is not None}
    default = {r.number: r.answers for r in theirs if r.answers is not None}
    pairs: dict[tuple[int, int], tuple[Answers, Answers]] = {
        (min(a, b), max(a, b)): (mine[a], default[b]) for a in mine for b in default if a != b
    }
    return agreement(list(pairs.values()))
