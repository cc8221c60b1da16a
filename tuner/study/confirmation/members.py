"""Members of a confirmation: what stands, with what is expected of it on unseen traffic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tuner.analysis.knobs.returns import Returns
from tuner.analysis.outcomes import baseline_of, ended_early, energy_j, front_of, measured
from tuner.analysis.outlook import Outlook, energy_shift
from tuner.analysis.verdicts import LEAST_REPEATS, Confirmation, confirmations
from tuner.configuration import Configuration
from tuner.measurement.statistics.unseen_traffic import (
    LEAST_WINDOWS,
    MOST_MISSES,
    SloVerdict,
)
from tuner.metrics import Direction, kind_of
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatRow, TrialRow

# Stretches from this number on tell the search how far within its SLOs to aim.
AIM_FROM = 1000
# Energies this near to each other may be the same: of two windows, and by a model of all windows.
AS_LITTLE, AS_LITTLE_BY_MODEL = 1.02, 1.005
# How likely a member is to hold; where none is, the next.
_CHANCES = (0.6, 0.5, 0.25, 0.05, 0.01)
# What is confirmed is left for one that may save so much more, and is so likely to hold.
_WORTH_IT, _LEAST_CHANCE = 0.01, 0.15
# What was begun goes on while it is so likely to hold, and nothing saves so much more.
_LIKELY, _CLEARLY_MORE = 0.6, 1.05
_TRIED = 6  # windows by which it is to be shown that something better holds
_MAY_BE_LUCK = 0.3  # chance to miss that windows of its own may still correct
_IN_DOUBT = 2 * LEAST_WINDOWS  # windows that have not shown it either way
_SURELY = 0.03  # chance to miss by which what is met will hardly be doubted again
_LAST = 10  # repeats in which a verdict has to be had, if there is none yet
_BEGUN = 1.2  # so many times what it promises, for what was begun


@dataclass(frozen=True, slots=True)
class Goal:
    """The SLOs and objectives that define the front, and the maximum repeats per member.

    `quality_drop` is how much less of the study's questions a member may answer right,
    `picture_drop` how much less its pictures may resemble the default's. Energies within a factor
    of `as_little` count as equal.
    """

    slos: tuple[Slo, ...]
    objectives: tuple[Objective, ...]
    most_repeats: int
    quality_drop: float = 0.0
    picture_drop: float = 1.0
    as_little: float = AS_LITTLE

    def verdicts(
        self, trials: Sequence[TrialRow], repeats: Iterable[RepeatRow]
    ) -> dict[int, Confirmation]:
        """Return what the repeats say of each trial."""
        drops = (self.quality_drop, self.picture_drop)
        return confirmations(trials, repeats, self.slos, *drops)


def returns_of(goal: Goal, trials: Sequence[TrialRow], outlook: Outlook) -> Returns:
    """Return what the search says of the knobs of each trial, with the margins of `outlook`."""
    default = baseline_of(trials)
    base = Configuration() if default is None else default.configuration
    within = {str(slo): outlook.margin(slo).needed for slo in goal.slos}
    return Returns(trials, goal.slos, base, within)


def members(
    goal: Goal,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    known: Mapping[int, Confirmation],
    left: int | None = None,
    *,
    is_aim: bool = False,
) -> list[TrialRow]:
    """Return the front that is expected on unseen traffic, the one to be measured next first.

    Each stands with what all repeats together say of it (`tuner.analysis.outlook`), unless its own
    reject it. Those are on the front that are likely to hold, or as likely as any is. What uses
    more energy than a default within the SLOs is not: its knobs go back, see
    `tuner.analysis.knobs.returns`. `left` is how many repeats there is room for, None for many. For
    the aims of a search (`is_aim`), which are not paired, what meets the SLOs counts as confirmed.
    """
    by_number = {t.number: t for t in trials}
    outlook = Outlook(goal.slos, trials, repeats)
    default = baseline_of(trials)
    trials = returns_of(goal, trials, outlook).standing
    rows = [
        trial
        if trial.baseline
        else _expected(trial, goal.slos, outlook.expected(trial.number), expected_j)
        for trial, expected_j in _with_energies(trials, default, known)
        if not _is_rejected(known.get(trial.number))
    ]
    hold = {t.number: outlook.chance_to_hold(t.number) for t in rows}
    met = {
        number
        for number, found in known.items()
        if found.is_met or (is_aim and found.slo is SloVerdict.MET)
    }
    held = [t for t in rows if not t.baseline and t.number in met]
    front: list[TrialRow] = []
    for chance in _CHANCES:
        standing = [t for t in rows if t.baseline or hold[t.number] >= chance or t in held]
        front = front_of(standing, goal.slos, goal.objectives)
        if not all(t.baseline for t in front):
            break
    if front and not front[0].baseline:
        defaults_j = [energy_j(t) or math.inf for t in front if t.baseline]
        able = [
            t
            for t in rows
            if not t.baseline and all((energy_j(t) or math.inf) < theirs for theirs in defaults_j)
        ]
        begun = [r.trial for r in repeats if r.traffic is not None and r.traffic < AIM_FROM]
        room = _Room(known, left)
        default_j = max(defaults_j or [energy_j(t) or 0.0 for t in able], default=0.0)
        is_sure = any(outlook.miss_chance(t.number) <= _SURELY for t in held)
        if held and (is_sure or not room.is_little):
            first = _improvement(able, held, hold, outlook, begun, room)
        elif room.is_little:
            first = _last_chance(able, default_j, outlook, room)
        else:
            first = _leader(able, hold, outlook, begun, goal.as_little)
            if outlook.miss_chance(first.number) > MOST_MISSES:
                first = _turn_of(first, able, default_j, hold, room) or first
        front = [first, *(t for t in front if t.number != first.number)]
    return [by_number[t.number] for t in front]


def _is_rejected(found: Confirmation | None) -> bool:
    return found is not None and (found.is_dropped or found.is_hopeless)


@dataclass(frozen=True, slots=True)
class _Room:
    """What the repeats that are `left` can still show; None are many."""

    known: Mapping[int, Confirmation]
    left: int | None

    @property
    def is_little(self) -> bool:
        """Whether a verdict has to be had of what is left."""
        return self.left is not None and self.left <= _LAST

    def repeats(self, number: int) -> int:
        """Return how many windows of its own a trial has."""
        found = self.known.get(number)
        return 0 if found is None else found.repeats

    def is_new(self, number: int) -> bool:
        """Whether a trial has too few windows of its own for a verdict."""
        return self.repeats(number) < LEAST_WINDOWS

    def is_met(self, number: int) -> bool:
        """Whether a trial meets the SLOs, compared with the default or not."""
        found = self.known.get(number)
        return found is not None and found.slo is SloVerdict.MET

    def pairs(self, number: int) -> int:
        """Return how many windows of the default a trial still needs beside its own."""
        found = self.known.get(number)
        return max(0, LEAST_REPEATS - (0 if found is None else found.pairs))

    def lacks_pairs(self, number: int) -> bool:
        """Whether a trial is to be compared, and can be: at least with windows of the default."""
        return self.pairs(number) > 0 and (self.left is None or self.left >= self.pairs(number))

    def windows(self, number: int) -> tuple[int, ...]:
        """Return how many more windows may be tried of a trial, the fewest for a verdict first.

        Empty if there is no room for that.
        """
        least = max(1, LEAST_WINDOWS - self.repeats(number), self.pairs(number))
        most = _TRIED if self.left is None else self.left - self.pairs(number)
        return tuple(sorted({least, min(max(_TRIED, least), most)})) if most >= least else ()


def _last_chance(
    able: Sequence[TrialRow], default_j: float, outlook: Outlook, room: _Room
) -> TrialRow:
    """Return what to spend the last repeats on where nothing is surely confirmed yet.

    What counts is the saving, times the chance that they show that it holds: what would save more,
    but cannot be settled any more, ends the night with the default; and one heavy window of another
    trial may put in doubt again what is met narrowly. What meets the SLOs by its own windows comes
    before: it only needs the default's beside them.
    """
    settled = [t for t in able if room.is_met(t.number) and room.lacks_pairs(t.number)]
    if settled:
        return min(settled, key=lambda t: energy_j(t) or math.inf)

    def promise(trial: TrialRow) -> tuple[float, float]:
        windows, trial_j = room.windows(trial.number), energy_j(trial) or math.inf
        shown = outlook.chance_to_show(trial.number, windows[-1]) if windows else 0.0
        return shown * max(0.0, default_j - trial_j), shown

    return max(able, key=promise)


def _improvement(
    able: Sequence[TrialRow],
    held: Sequence[TrialRow],
    hold: Mapping[int, float],
    outlook: Outlook,
    begun: Sequence[int],
    room: _Room,
) -> TrialRow:
    """Return what promises to save most over what is confirmed, or that itself.

    First it is the least energy of what is expected to be met; of what was begun, if any is: a
    window each of ever better ones would end the night with none of them confirmed. Else what
    counts is the saving, times the chance that a few windows show that it holds, for each repeat
    that they take; what was begun is rather finished. Where nothing is likely to hold, windows of
    their own may still say otherwise of some: what led was lucky in the search, and all others are
    expected to lose as much as it did.
    """
    best = min(held, key=lambda t: energy_j(t) or math.inf)
    best_j = energy_j(best) or math.inf

    def promise(trial: TrialRow) -> float:
        is_begun = trial.number in begun
        saving = 1.0 - (energy_j(trial) or math.inf) / best_j
        shown = max(
            outlook.chance_to_show(trial.number, windows) / (windows + room.pairs(trial.number))
            for windows in room.windows(trial.number)
        )
        return (_BEGUN if is_begun else 1.0) * shown * saving

    better = [
        t
        for t in able
        if (energy_j(t) or math.inf) < best_j * (1.0 - _WORTH_IT) and room.windows(t.number)
    ]
    worth = [t for t in better if hold[t.number] >= _LEAST_CHANCE]
    worth = worth or [
        t for t in better if room.is_new(t.number) and outlook.miss_chance(t.number) <= _MAY_BE_LUCK
    ]
    sure = [t for t in worth if outlook.miss_chance(t.number) <= MOST_MISSES]
    if sure:
        started = [t for t in sure if t.number in begun]
        return min(started or sure, key=lambda t: energy_j(t) or math.inf)
    if not worth:
        return best
    first = max(worth, key=lambda t: (promise(t), hold[t.number]))
    return _turn_of(first, better, best_j, hold, room) or first


def _turn_of(
    doubtful: TrialRow,
    able: Sequence[TrialRow],
    held_j: float,
    hold: Mapping[int, float],
    room: _Room,
) -> TrialRow | None:
    """Return which trial between what stays in doubt and what holds has its turn, if any has.

    What uses more energy is likelier to hold, whatever its one window of the search said; a few of
    its own tell. Together they get as many as what stays in doubt. `held_j` is the energy of what
    holds: if nothing is confirmed, of the default.
    """
    least_j = energy_j(doubtful) or math.inf
    saved_j = {t.number: held_j - (energy_j(t) or math.inf) for t in able}
    between = [t for t in able if (energy_j(t) or math.inf) > least_j and saved_j[t.number] > 0.0]
    new = [t for t in between if room.is_new(t.number) and room.windows(t.number)]
    own = room.repeats(doubtful.number)
    if not new or own < _IN_DOUBT or own <= sum(room.repeats(t.number) for t in between):
        return None
    return max(new, key=lambda t: (room.repeats(t.number), hold[t.number] * saved_j[t.number]))


def _leader(
    able: Sequence[TrialRow],
    hold: Mapping[int, float],
    outlook: Outlook,
    begun: Sequence[int],
    as_little: float,
) -> TrialRow:
    """Return what is confirmed first, so that there is an answer early.

    It is the least energy of what surely holds by what is known, or else, and while little is known
    of unseen traffic, of what is likely to hold. Of equals, as far as one window can tell, it is
    the one with the fewest knobs. One that was begun stays while it is likely to hold, unless
    another surely does, or saves clearly more.
    """
    sure = [
        t
        for t in able
        if (t.number in begun or outlook.stretches > LEAST_WINDOWS)
        and outlook.miss_chance(t.number) <= MOST_MISSES
    ] or [t for t in able if t.number in begun and hold[t.number] >= _LIKELY]
    levels = ([t for t in able if hold[t.number] >= chance] for chance in _CHANCES)
    likely = sure or next((level for level in levels if level), list(able))
    least_j = min(energy_j(t) or math.inf for t in likely)
    going_on = [
        t
        for t in likely
        if t.number in begun and (energy_j(t) or math.inf) <= least_j * _CLEARLY_MORE
    ]
    if going_on:
        return max(going_on, key=lambda t: begun.count(t.number))
    equals = [t for t in likely if (energy_j(t) or math.inf) <= least_j * as_little]
    return min(equals, key=lambda t: (len(t.configuration.knobs()), energy_j(t) or math.inf))


def _with_energies(
    trials: Sequence[TrialRow], default: TrialRow | None, known: Mapping[int, Confirmation]
) -> list[tuple[TrialRow, float | None]]:
    """Return the measured trials, each with the energy that is expected on the search's stretch, J.

    It is what the search measured and what others lost against that, and as often as it was paired
    the default's times the ratio on the same unseen traffic: one pair says no more than one window.
    """
    compared = {
        n: (1.0 + found.energy.difference, max(found.pairs, 1))
        for n, found in known.items()
        if found.energy is not None and found.energy.difference > -1.0
    }
    ratios = {n: ratio for n, (ratio, _) in compared.items()}
    lost, default_j = math.exp(energy_shift(trials, ratios)), energy_j(default)
    found: list[tuple[TrialRow, float | None]] = []
    cut_short = {t.number for t in ended_early(trials)}  # whose figures are lower bounds
    for trial in measured(trials):
        if trial.number in cut_short:
            continue
        searched_j = energy_j(trial)
        expected_j = None if searched_j is None else searched_j * lost
        if default_j is not None and trial.number in compared:
            ratio, pairs = compared[trial.number]
            seen_j = default_j * ratio
            share = pairs / (pairs + 1.0) if expected_j and seen_j > 0.0 else 1.0
            expected_j = seen_j**share * (expected_j or 1.0) ** (1.0 - share)
        found.append((trial, expected_j))
    return found


def _expected(
    trial: TrialRow,
    slos: Sequence[Slo],
    violations: Mapping[str, float],
    expected_j: float | None,
) -> TrialRow:
    """Return the trial with what is expected of it; an SLO that may be met counts as met."""
    assert trial.measurement is not None
    metrics = dict(trial.measurement.metrics)
    for slo in slos:
        if slo.metric in violations:
            sign = 1.0 if slo.direction is Direction.MIN else -1.0
            metrics[slo.metric] = slo.bound * math.exp(sign * min(violations[slo.metric], 0.0))
    if expected_j is not None:
        metrics[kind_of(metrics).energy] = expected_j
    return replace(trial, measurement=replace(trial.measurement, metrics=metrics))
