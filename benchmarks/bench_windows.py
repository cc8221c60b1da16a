"""How well the intervals hold the truth, and what an adaptive window saves: prints the tables.

    PYTHONPATH=tests python -m benchmarks.bench_windows [--parts coverage] [--cases 0 4]

`--cases` are numbers in CASES. Everything runs on the emulator's virtual clock, with its noise. The
gain of the power sensor, which differs from run to run, is left out of the windows: no interval
from within one run can know of it. It is what the comparison of runs is about.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from helpers.coverage import SETTLING_LIFETIMES, Coverage, coverage, long_runs
from helpers.virtual_loads import CASES, Case, cut, metrics_of, replay, simulate

from tuner.emulator import virtual
from tuner.measurement.intervals import intervals
from tuner.measurement.precision import Precision
from tuner.measurement.statistics.compare import Repeat, Verdict, compare
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import RawRun

PERCENTILE = "p95_tpot_ms"
WINDOWS_PER_RUN = 10
GRID_LENGTHS = 20
PARTS = ("same", "coverage", "adaptive", "loose", "stretch")
LEAST_SAME = 60  # runs to draw from


# the rest takes longer than 900 s to be known so well
TIGHT_CASES = CASES[:4]
WINDOWS_S = (120.0, 180.0, 180.0, 180.0, 180.0, 120.0, 120.0)


def narrow(run: RawRun, precision: Precision) -> bool:
    known, metrics = intervals(run, {}), metrics_of(run)
    targets = dict.fromkeys(precision.percentiles, precision.percentile_share)
    targets["energy_per_output_token_j"] = precision.energy_share
    return all(
        name in known and known[name].half_width <= share * metrics[name]
        for name, share in targets.items()
    )


def needed_s(run: RawRun, start_s: float, precision: Precision) -> float:
    """Return the shortest fixed length that is narrow enough, and still is when one step longer."""
    before_s = None
    for length_s in np.geomspace(precision.min_window_s, precision.max_window_s, GRID_LENGTHS):
        if not narrow(cut(run, start_s, start_s + float(length_s)), precision):
            before_s = None
        elif before_s is not None:
            return before_s
        else:
            before_s = float(length_s)
    return math.inf if before_s is None else before_s


@dataclass(slots=True)
class Adapted:
    """What adaptive windows did in one case."""

    lengths_s: list[float] = field(default_factory=list)
    reached: int = 0
    needed_s: list[float] = field(default_factory=list)
    energy: Coverage = field(default_factory=Coverage)
    percentile: Coverage = field(default_factory=Coverage)
    warmups_s: list[float] = field(default_factory=list)


def adapt(case: Case, precision: Precision, seeds: int) -> Adapted:
    """Replay long runs to a watch; find the fixed length that each would have needed."""
    plan = WindowPlan(warmup_limit_s=30.0 * case.lifetime_s, precision=precision)
    result, settled_s = Adapted(), SETTLING_LIFETIMES * case.lifetime_s
    length_s = plan.warmup_limit_s + precision.max_window_s
    runs = [simulate(case, 1000 + seed, settled_s, length_s) for seed in range(seeds)]
    whole = [metrics_of(run) for run in runs]
    names = ("energy_per_output_token_j", PERCENTILE)
    truth = {name: float(np.mean([m[name] for m in whole])) for name in names}
    for run in runs:
        watch = SteadyWindow(plan)
        replay(run, watch)
        start_s, end_s = watch.window_start_s, watch.window_end_s
        assert start_s is not None and end_s is not None
        result.lengths_s.append(end_s - start_s)
        result.warmups_s.append(start_s)
        result.reached += watch.precise is True
        known = intervals(cut(run, start_s, end_s), {})
        result.energy.note(known.get(names[0]), truth[names[0]])
        result.percentile.note(known.get(names[1]), truth[names[1]])
        result.needed_s.append(needed_s(run, start_s, precision))
    return result


def print_coverage(case: Case, window_s: float, count: int) -> None:
    runs = long_runs(case, WINDOWS_PER_RUN * window_s, math.ceil(count / WINDOWS_PER_RUN))
    print(f"\n{case}, windows of {window_s:g} s")
    for name, tally in coverage(runs, window_s).items():
        width = f"+-{100 * np.median(tally.widths):5.1f} %" if tally.widths else ""
        print(
            f"  {name:28} holds the truth {100 * tally.share:5.1f} % of {tally.had:3} "
            f"({tally.windows} windows)  {width}",
            flush=True,
        )


def print_adaptive(precision: Precision, cases: Sequence[Case], seeds: int) -> None:
    print(
        f"\nadaptive windows of at most {precision.max_window_s:g} s: J/token to "
        f"{precision.energy_share:.0%}, {PERCENTILE} to {precision.percentile_share:.0%}, "
        f"{seeds} runs of each\n{'case':22}{'warm-up':>9}{'adaptive':>10}{'longest':>9}"
        f"{'reached':>9}{'needed':>9}  holds the truth: J/token, {PERCENTILE}"
    )
    lengths, needed = [], []
    for case in cases:
        a = adapt(case, precision, seeds)
        print(
            f"{case!s:22}{np.mean(a.warmups_s):7.0f} s{np.mean(a.lengths_s):8.0f} s"
            f"{max(a.lengths_s):7.0f} s{a.reached:6}/{seeds}{max(a.needed_s):7.0f} s"
            f"  {a.energy.held}/{a.energy.had}, {a.percentile.held}/{a.percentile.had}",
            flush=True,
        )
        if a.reached == seeds and math.isfinite(max(a.needed_s)):
            lengths += a.lengths_s
            needed += a.needed_s
    fixed_s, mean_s = max(needed), float(np.mean(lengths))
    print(
        f"of the cases that can be had in {precision.max_window_s:g} s: a fixed length that does "
        f"for all is {fixed_s:.0f} s, adaptive windows take {mean_s:.0f} s, "
        f"{1 - mean_s / fixed_s:.0%} less"
    )


def print_stretch(precision: Precision, cases: Sequence[Case], seeds: int) -> None:
    """Print how wide the intervals of open loads are, whose window has one length and place."""
    plan = WindowPlan(precision=precision).on_one_stretch()
    start_s = plan.latest_start_s
    end_s = start_s + plan.longest_window_s
    print(f"\nopen loads, always from {start_s:g} s to {end_s:g} s, {seeds} runs of each")
    for case in cases:
        widths: dict[str, list[float]] = {"energy_per_output_token_j": [], PERCENTILE: []}
        for seed in range(seeds):
            run = simulate(case, 1000 + seed, start_s, end_s)
            known, metrics = intervals(run, {}), metrics_of(run)
            for name, found in widths.items():
                if name in known:
                    found.append(known[name].half_width / metrics[name])
        shown = (
            f"{name} {len(found)}/{seeds}" + (f" +-{np.median(found):.1%}" if found else "")
            for name, found in widths.items()
        )
        print(f"{case!s:22}{', '.join(shown)}", flush=True)


def print_same(runs: int, comparisons: int) -> None:
    """Compare a configuration with itself: three repeats with four baselines spread around them."""
    name = "energy_per_output_token_j"
    values = [metrics_of(simulate(CASES[0], 5000 + seed, 5.0, 15.0))[name] for seed in range(runs)]
    rng, different = np.random.default_rng(0), 0
    for _ in range(comparisons):
        drawn = rng.choice(values, 7, replace=False)
        repeats = [Repeat(float(hour), float(value)) for hour, value in enumerate(drawn)]
        verdict = compare(name, repeats[1::2], repeats[::2]).verdict
        different += verdict in (Verdict.BETTER, Verdict.WORSE)
    print(
        f"\na configuration against itself, 3 repeats and 4 baselines of {runs} runs: different in "
        f"{different} of {comparisons}, {different / comparisons:.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    if "same" in options.parts:
        print_same(max(options.windows // 2, LEAST_SAME), 5 * options.windows)
    virtual.ENERGY_GAIN = 0.0
    if "coverage" in options.parts:
        for number in options.cases:
            print_coverage(CASES[number], WINDOWS_S[number], options.windows)
    tight = Precision(max_window_s=900.0, percentiles=(PERCENTILE,))
    closed = [CASES[n] for n in options.cases if CASES[n].load.concurrency is not None]
    if "adaptive" in options.parts and closed:
        print_adaptive(tight, [case for case in closed if case in TIGHT_CASES], options.seeds)
    if "loose" in options.parts and closed:
        loose = replace(tight, energy_share=0.05, percentile_share=0.10)
        print_adaptive(loose, closed, options.seeds)
    opened = [CASES[n] for n in options.cases if CASES[n].load.concurrency is None]
    if "stretch" in options.parts and opened:
        print_stretch(Precision(percentiles=(PERCENTILE,)), opened, options.seeds)


if __name__ == "__main__":
    main()
