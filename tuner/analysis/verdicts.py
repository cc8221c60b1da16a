"""Verdicts: which trials the repeats confirm, and how much energy they save.

Repeats run on stretches of traffic that the search does not see. Those of an older store ran on the
search's own; their verdict is of the noise of launches alone, and goes by `_slo_by_interval`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuner.analysis.monotonic_times import steady_starts
from tuner.analysis.outcomes import baseline_of, energy_in
from tuner.analysis.outlook import Outlook
from tuner.measurement.outputs import Agreement, agreement
from tuner.measurement.quality.accuracy import AccuracyChange, accuracy_change
from tuner.measurement.statistics.compare import (
    Comparison,
    Estimate,
    Repeat,
    compare,
    drift_of,
    pooled_estimates,
)
from tuner.measurement.statistics.paired import (
    Pair,
    compare_pairs,
    drift_of_pairs,
    paired_changes,
    spread_of_pairs,
)
from tuner.measurement.statistics.unseen_traffic import (
    LEAST_WINDOWS,
    SloVerdict,
    slo_verdict,
)
from tuner.metrics import Direction, kind_of
from tuner.pictures import Pictures, mean_ssim
from tuner.records import FailureKind
from tuner.slo import Slo
from tuner.store import Answers, RepeatRow, TrialRow

LEAST_REPEATS = 2
_STRICTER = 2.576 / 1.960  # half of the 99 % interval of a normal variable by that of 95 %
_SELDOM = 0.1  # so small a chance to hold is not worth another repeat
_NARROW = 0.01  # half the interval of the saving: a tie that is worth no further repeat


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The verdict of the repeats of one trial's configuration.

    Attributes:
        repeats: how many were measured.
        estimates: of each metric that every repeat has.
        slo: for traffic that was not measured.
        energy: its energy per output token against the default's on the same traffic; None without
            repeats of that.
        agreement: of its answers to the probe prompts with the default's.
        fault: why the configuration did not work when it was repeated.
        quality: its accuracy on the study's questions beside the baseline's.
        most_drop: of the accuracy that it may have.
        pictures: beside the baseline's of the same prompts and seeds, the latest.
        own_ssim: of the baseline with itself, on another launch; 1 if that is not known.
        most_picture_drop: how much less than that its mean SSIM may be.
        warnings: of its repeats, each once.
        pairs: on how many stretches both it and the default were measured.
        changes: of each metric against the default's on those: value / default's - 1.
        miss_chance: how likely a further window misses an SLO, by the repeats of all trials; None
            of an older store.
        is_hopeless: whether an SLO would hardly be met however often it is repeated.
        is_unseen: whether the repeats ran on traffic that the search did not see.
    """

    trial: int
    repeats: int
    estimates: Mapping[str, Estimate]
    slo: SloVerdict
    energy: Comparison | None
    agreement: Agreement | None
    fault: str | None
    warnings: tuple[str, ...] = ()
    pairs: int = 0
    changes: Mapping[str, float] = field(default_factory=dict)
    miss_chance: float | None = None
    is_hopeless: bool = False
    is_unseen: bool = False
    quality: AccuracyChange | None = None
    most_drop: float = 0.0
    pictures: Pictures = ()
    own_ssim: float = 1.0
    most_picture_drop: float = 1.0

    @property
    def loses_quality(self) -> bool:
        """Whether it answers fewer questions right, or changes pictures more, than is allowed."""
        if self.quality is not None and self.quality.drop > self.most_drop:
            return True
        ssim = mean_ssim(self.pictures)
        return ssim is not None and self.own_ssim - ssim > self.most_picture_drop

    @property
    def is_confirmed(self) -> bool:
        """Whether it may be recommended."""
        is_compared = self.pairs >= LEAST_REPEATS or not self.is_unseen
        return self.repeats >= LEAST_REPEATS and is_compared and not self.is_dropped

    def stands_for(self, *, is_default: bool) -> bool:
        """Say whether the trial's figures are its repeats': the default's also if it misses."""
        is_repeated = self.repeats >= LEAST_REPEATS and self.fault is None
        return self.is_confirmed or (is_default and is_repeated)

    @property
    def is_dropped(self) -> bool:
        """Whether the repeats reject the search's result."""
        return self.fault is not None or self.slo is SloVerdict.MISSED or self.loses_quality

    def is_decided(self, most_repeats: int) -> bool:
        """Say whether another repeat could not change the verdict."""
        if self.is_dropped or self.is_hopeless:
            return True
        if self.pairs < LEAST_REPEATS:
            return False
        is_settled = self.slo is not SloVerdict.UNCERTAIN and self.knows_energy
        return is_settled or self.repeats >= most_repeats

    @property
    def is_met(self) -> bool:
        """Whether it is confirmed that every SLO is met on traffic that was not measured."""
        return self.is_confirmed and self.slo is SloVerdict.MET

    @property
    def knows_energy(self) -> bool:
        """Whether another pair could hardly change how its energy compares with the default's."""
        if self.energy is None or self.energy.interval is None or self.pairs < LEAST_WINDOWS:
            return False
        return self.energy.interval.half_width <= _NARROW


def confirmations(
    trials: Sequence[TrialRow],
    repeats: Iterable[RepeatRow],
    slos: Sequence[Slo],
    most_drop: float = 0.0,
    most_picture_drop: float = 1.0,
) -> dict[int, Confirmation]:
    """Return the verdict on every repeated trial, including the default.

    `most_drop` is how much less of the study's questions it may answer right, `most_picture_drop`
    how much less its pictures may resemble the default's than those do each other.
    """
    by_trial: dict[int, list[RepeatRow]] = {}
    for repeat in _of_one_kind(_steadily(repeats)):
        if repeat.measurement is not None or repeat.failure is not None:
            by_trial.setdefault(repeat.trial, []).append(repeat)
    baseline = baseline_of(trials)
    theirs = [] if baseline is None else _measured(by_trial.get(baseline.number, []))
    estimates = _estimates({number: _measured(rows) for number, rows in by_trial.items()})
    energies = _energies_beside({n: _measured(rows) for n, rows in by_trial.items()}, theirs)
    outlook = Outlook(slos, trials, [row for rows in by_trial.values() for row in rows])
    own_ssim = mean_ssim(_pictures(theirs)) or 1.0
    return {
        number: replace(
            _confirmation(rows, theirs, slos, estimates[number], energies[number], outlook),
            quality=accuracy_change(_grades(rows), _grades(theirs)),
            most_drop=most_drop,
            pictures=_pictures(rows),
            own_ssim=own_ssim,
            most_picture_drop=most_picture_drop,
        )
        for number, rows in by_trial.items()
    }


def _grades(rows: Iterable[RepeatRow]) -> tuple[bool, ...]:
    """Return the latest grades; none if the questions were not asked."""
    found = [row.grades for row in rows if row.grades is not None]
    return found[-1] if found else ()


def _pictures(rows: Iterable[RepeatRow]) -> Pictures:
    found = [row.pictures for row in rows if row.pictures is not None]
    return found[-1] if found else ()


@dataclass(frozen=True, slots=True)
class _Energy:
    """Energy per token against the default's, and on how many stretches both were measured."""

    comparison: Comparison | None
    pairs: int


def _energies_beside(
    groups: Mapping[int, Sequence[RepeatRow]], theirs: Sequence[RepeatRow]
) -> dict[int, _Energy]:
    """Compare each trial with the default: on the same traffic, or in an older store by time."""
    if not any(row.traffic is not None for rows in groups.values() for row in rows):
        return {n: _Energy(_against(rows, theirs), 0) for n, rows in groups.items()}
    pairs = {number: _pairs(rows, theirs) for number, rows in groups.items()}
    default = {row.trial for row in theirs}
    steps = max(r.number for r in theirs) - min(r.number for r in theirs) if theirs else 0
    own_drift = drift_of(Repeat(number, joule) for number, joule in _by_traffic(theirs).values())
    others = [p for n, p in pairs.items() if n not in default]
    drift, per_step = drift_of_pairs(others, steps, own_drift)
    name, found = _energy_name(theirs), {}
    for number, own in pairs.items():
        others = [p for n, p in pairs.items() if n not in default and n != number]
        spread = spread_of_pairs(others, per_step)
        comparison = compare_pairs(name, own, drift, per_step, spread) if own else None
        found[number] = _Energy(comparison, len(own))
    return found


def _of_one_kind(rows: list[RepeatRow]) -> list[RepeatRow]:
    """Leave out repeats on the search's traffic (of an older tuner) once there are better ones."""
    unseen = [row for row in rows if row.traffic is not None]
    return unseen or rows


def as_confirmed(trial: TrialRow, known: Mapping[int, Confirmation]) -> TrialRow:
    """Return the trial with its repeats in place of what the search measured, if they stand for it.

    It also takes their warnings, because those of the search's window do not apply to them.
    """
    found = known.get(trial.number)
    if trial.measurement is None or not (found and found.stands_for(is_default=trial.baseline)):
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
    rows: Sequence[RepeatRow],
    theirs: Sequence[RepeatRow],
    slos: Sequence[Slo],
    estimates: Mapping[str, Estimate],
    energy: _Energy,
    outlook: Outlook,
) -> Confirmation:
    ours, number = _measured(rows), rows[0].trial
    is_unseen = all(row.traffic is not None for row in rows)
    chance = outlook.miss_chance(number) if is_unseen else None
    is_known = is_unseen and len(ours) >= LEAST_WINDOWS
    return Confirmation(
        trial=number,
        repeats=len(ours),
        estimates=estimates,
        slo=(
            _slo_by_interval(estimates, slos)
            if chance is None
            else slo_verdict(_violations(ours, slos), chance)
        ),
        energy=energy.comparison,
        agreement=_agreement(ours, theirs),
        fault=_fault(rows),
        warnings=tuple(dict.fromkeys(warning for row in ours for warning in row.warnings)),
        pairs=energy.pairs,
        changes=_changes(ours, theirs),
        miss_chance=chance,
        is_hopeless=is_known and outlook.chance_to_hold(number) < _SELDOM,
        is_unseen=is_unseen,
    )


def _violations(rows: Sequence[RepeatRow], slos: Sequence[Slo]) -> list[list[float]]:
    """Return log(value / bound) of each window, by SLO."""
    windows = [row.measurement.metrics for row in rows if row.measurement is not None]
    return [[slo.violation(w[slo.metric]) for w in windows if slo.metric in w] for slo in slos]


def _pairs(ours: Sequence[RepeatRow], theirs: Sequence[RepeatRow]) -> list[Pair]:
    """Return the energies per token of both, J, on each stretch that both were measured on."""
    mine, default = _by_traffic(ours), _by_traffic(theirs)
    return [
        Pair(mine[n][1], default[n][1], mine[n][0] - default[n][0])
        for n in sorted(mine.keys() & default.keys())
    ]


def _changes(ours: Sequence[RepeatRow], theirs: Sequence[RepeatRow]) -> dict[str, float]:
    mine, default = (
        {r.traffic: r.measurement.metrics for r in rows if r.measurement and r.traffic is not None}
        for rows in (ours, theirs)
    )
    return paired_changes([(mine[n], default[n]) for n in mine.keys() & default.keys()])


def _by_traffic(rows: Sequence[RepeatRow]) -> dict[int, tuple[int, float]]:
    """Return the number of the repeat and its energy per token, J, by stretch of traffic."""
    return {
        row.traffic: (row.number, ours_j)
        for row in rows
        if row.traffic is not None
        and row.measurement is not None
        and (ours_j := energy_in(row.measurement.metrics) or 0.0) > 0.0
    }


def _fault(rows: Sequence[RepeatRow]) -> str | None:
    """Return why the configuration does not work; dying once may be the machine's fault."""
    failures = [r.failure for r in rows if r.failure is not None]
    own = [f.reason for f in failures if f.kind is FailureKind.CONFIGURATION]
    died = [f.reason for f in failures if f.kind is FailureKind.UNSTABLE]
    return next(iter([*own, *died[1:]]), None)


def _slo_by_interval(estimates: Mapping[str, Estimate], slos: Sequence[Slo]) -> SloVerdict:
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
    return compare(_energy_name(theirs), runs, baseline) if runs and baseline else None


def _energies(rows: Sequence[RepeatRow]) -> list[Repeat]:
    return [
        Repeat(r.started_at.timestamp(), ours_j)
        for r in rows
        if r.measurement is not None and (ours_j := energy_in(r.measurement.metrics) or 0.0) > 0.0
    ]


def _energy_name(rows: Sequence[RepeatRow]) -> str:
    """Return the name of the energy per unit that repeats of one study have."""
    known = (r.measurement.metrics for r in rows if r.measurement is not None)
    return kind_of(next(known, {})).energy


def _agreement(ours: Sequence[RepeatRow], theirs: Sequence[RepeatRow]) -> Agreement | None:
    """Return the agreement of every two launches of which one is the default's."""
    mine = {r.number: r.answers for r in ours if r.answers is not None}
    default = {r.number: r.answers for r in theirs if r.answers is not None}
    pairs: dict[tuple[int, int], tuple[Answers, Answers]] = {
        (min(a, b), max(a, b)): (mine[a], default[b]) for a in mine for b in default if a != b
    }
    return agreement(list(pairs.values()))
