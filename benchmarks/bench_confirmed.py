"""How often does what is called met miss its SLO, and what does being sure cost? Prints a table.

    PYTHONPATH=tests:. python -m benchmarks.bench_confirmed [--nights 32] [--first 0] [--repeats 38]

The confirmation's own plan and verdict on nights without an engine: log(p99 TPOT / bound) of a
window is a clock's mean, plus how heavy the stretch is, plus a rest. So the chance to miss of what
a night recommends is known exactly. Means, spreads and savings are the emulator's, of 40 stretches
of 180 s; so is by how much a stretch follows the heaviness that is known in advance (`--known no`
is a night in which it is not). What a window shows depends on the night's seed, the clock and the
stretch only, so that two versions meet the same. The search has measured every second clock;
`between` also tries the ones in the middle, as it does.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from helpers.night_rows import repeat, values
from helpers.records import trial_row

from tuner.analysis.verdicts import confirmations
from tuner.configuration import Configuration
from tuner.measurement.statistics.unseen_traffic import SloVerdict
from tuner.metrics import STRETCH_HEAVINESS
from tuner.slo import Slo
from tuner.spec.objective import Objective
from tuner.store import RepeatRow, TrialRow
from tuner.study.confirmation.members import Goal
from tuner.study.confirmation.plan import AIM_REPEATS, Step, aim_step, next_step
from tuner.study.confirmation.returns import next_between

_BOUND_MS, _DEFAULT_J = 50.0, 0.4
_SLOS = (Slo("p99_tpot_ms", _BOUND_MS),)
_OBJECTIVES = ("energy_per_output_token_j", "p99_tpot_ms")
GOAL = Goal(_SLOS, tuple(map(Objective.parse, _OBJECTIVES)), 4)
_ENERGY_SPREAD = 0.01
_NEAR_PERCENT = 3.0
_OF_THE_SEARCHS = 0.5  # its stretch is representative
_STRETCH, _HEAVINESS, _OWN, _ENERGY = range(4)  # what is drawn


@dataclass(frozen=True)
class Clocks:
    """A model's clocks: mean log(p99 TPOT / bound) and saving (%) of each, and the default's.

    A window has a spread of its own beside that of its stretch. `heaviness` is the correlation of
    what a stretch does with the heaviness that is known of it.
    """

    name: str
    means: dict[int, float]
    savings: dict[int, float]
    default: float
    stretch_spread: float
    own_spread: float
    heaviness: float = 0.9

    def misses(self, mhz: int | None) -> float:
        """Return the share of windows in which a clock (None: the default's) misses the SLO."""
        mean = self.default if mhz is None else self.means[mhz]
        return 0.5 * math.erfc(
            -mean / math.hypot(self.stretch_spread, self.own_spread) / math.sqrt(2)
        )

    @property
    def best_saving(self) -> float:
        """What could be saved by a clock that holds in 95 of 100 windows, %."""
        return max([0.0, *(s for mhz, s in self.savings.items() if self.misses(mhz) <= 0.05)])

    def over_best(self, mhz: int | None) -> float:
        """Return by how many % a clock uses more energy than the best that holds."""
        saving = 0.0 if mhz is None else self.savings[mhz]
        return 100.0 * ((100.0 - saving) / (100.0 - self.best_saving) - 1.0)


CASES = (
    Clocks(
        "70B chat, 8 x H100",
        {
            1380: -0.093,
            1440: -0.125,
            1500: -0.157,
            1560: -0.186,
            1620: -0.213,
            1680: -0.236,
            1740: -0.255,
            1800: -0.276,
            1860: -0.300,
        },
        {
            1380: 32.5,
            1440: 29.7,
            1500: 26.8,
            1560: 23.8,
            1620: 20.7,
            1680: 17.5,
            1740: 14.2,
            1800: 10.8,
            1860: 7.3,
        },
        default=-0.33,
        stretch_spread=0.104,
        own_spread=0.035,
    ),
    Clocks(
        "8B code, L40S",
        {
            1320: -0.222,
            1395: -0.288,
            1470: -0.346,
            1545: -0.402,
            1620: -0.450,
            1695: -0.492,
            1770: -0.504,
            1845: -0.504,
        },
        {
            1320: 35.2,
            1395: 32.4,
            1470: 29.6,
            1545: 26.6,
            1620: 23.6,
            1695: 20.5,
            1770: 18.6,
            1845: 17.0,
        },
        default=-0.505,
        stretch_spread=0.177,
        own_spread=0.038,
    ),
)


@dataclass
class Night:
    """One confirmation, from what the search measured to what it calls met."""

    clocks: Clocks
    seed: int
    knows_heaviness: bool = True
    trials: list[TrialRow] = field(default_factory=list)
    rows: list[RepeatRow] = field(default_factory=list)
    mhz: dict[int, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._try(None)
        for mhz in list(self.clocks.means)[::2]:
            self._try(mhz)

    def run(self, repeats: int, *, between: bool) -> int | None:
        """Return the clock that would be recommended, None if nothing is called met."""
        for _ in range(AIM_REPEATS):
            if (step := aim_step(GOAL, 0.99, None, self.trials, self.rows)) is not None:
                self._measure(step)
        while len(self.rows) < repeats:
            left = repeats - len(self.rows)
            if between and self._tries_between(left):
                continue
            if (step := next_step(GOAL, self.trials, self.rows, left=left)) is None:
                break
            self._measure(step)
        known = confirmations(self.trials, self.rows, _SLOS)
        met = {
            number: found.energy.difference
            for number, found in known.items()
            if found.is_confirmed and found.slo is SloVerdict.MET and found.energy is not None
        }
        return self.mhz[min(met, key=lambda number: met[number])] if met else None

    def _tries_between(self, left: int) -> bool:
        pair = next_between(GOAL, self.trials, self.rows, left)
        low, high = sorted(self.mhz[n] or 0 for n in pair) if pair else (0, 0)
        inside = [mhz for mhz in self.clocks.means if low < mhz < high]
        if not inside or (middle := inside[len(inside) // 2]) in self.mhz.values():
            return False
        self._try(middle)
        return True

    def _try(self, mhz: int | None) -> None:
        number = len(self.trials)
        self.mhz[number] = mhz
        knobs = Configuration(device={} if mhz is None else {"sm_clock_mhz": mhz})
        row = trial_row(number, values(*self._window(mhz, None)), knobs)
        self.trials.append(replace(row, baseline=mhz is None))

    def _measure(self, step: Step) -> None:
        found = values(*self._window(self.mhz[step.trial.number], step.traffic))
        if self.knows_heaviness:
            heaviness = self._normal(_HEAVINESS, step.traffic)
            found = replace(found, metrics={**found.metrics, STRETCH_HEAVINESS: heaviness})
        row = repeat(len(self.rows), step.trial.number, found)
        self.rows.append(replace(row, traffic=step.traffic, kind=step.kind))

    def _window(self, mhz: int | None, stretch: int | None) -> tuple[float, float]:
        """Return energy (J) and p99 TPOT (ms) of a window; `stretch` None is the search's."""
        clocks, at = self.clocks, -1 if stretch is None else stretch
        unknown = math.sqrt(1.0 - clocks.heaviness**2) * self._normal(_STRETCH, at)
        heavy = clocks.heaviness * self._normal(_HEAVINESS, at) + unknown
        spread = clocks.stretch_spread * (_OF_THE_SEARCHS if stretch is None else 1.0)
        mean = clocks.default if mhz is None else clocks.means[mhz]
        own = clocks.own_spread * self._normal(_OWN, at, mhz or 0)
        saving = 0.0 if mhz is None else clocks.savings[mhz]
        of_energy = math.exp(_ENERGY_SPREAD * self._normal(_ENERGY, at, mhz or 0))
        energy_j = _DEFAULT_J * (1.0 - saving / 100.0) * of_energy
        return energy_j, _BOUND_MS * math.exp(mean + spread * heavy + own)

    def _normal(self, *of: int) -> float:
        return float(np.random.default_rng([self.seed, *(n + 1 for n in of)]).normal())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=32)
    parser.add_argument("--first", type=int, default=0, help="seed of the first night")
    parser.add_argument("--repeats", type=int, default=38)
    parser.add_argument("--known", choices=["no", "yes"], default="yes")
    parser.add_argument("--only", choices=["no", "yes"])  # with values in the middle
    asked = parser.parse_args()
    print(
        "| clocks | between | recommended (nights) | windows that meet the SLO | saving | best "
        "| J/token over the best's: mean, worst | within 3 % |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        for between in (False, True):
            if asked.only == ("no" if between else "yes"):
                continue
            chosen = [
                Night(case, seed, asked.known == "yes").run(asked.repeats, between=between)
                for seed in range(asked.first, asked.first + asked.nights)
            ]
            meets = 100.0 * (1.0 - statistics.fmean(map(case.misses, chosen)))
            saving = statistics.fmean(0.0 if c is None else case.savings[c] for c in chosen)
            overs = [case.over_best(c) for c in chosen]
            counts = sorted(Counter(c or 0 for c in chosen).items())
            shown = ", ".join(f"{mhz or 'default'}: {count}" for mhz, count in counts)
            print(
                f"| {case.name} | {'yes' if between else 'no'} | {shown} | {meets:.1f} % "
                f"| {saving:.1f} % | {case.best_saving:.1f} % "
                f"| {statistics.fmean(overs):+.1f} %, {max(overs):+.1f} % "
                f"| {sum(over <= _NEAR_PERCENT for over in overs)} of {len(overs)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
