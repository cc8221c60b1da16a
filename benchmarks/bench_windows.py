"""How well the intervals hold the truth, and what an adaptive window saves: prints the tables.

    PYTHONPATH=tests python -m benchmarks.bench_windows [--parts coverage] [--cases 0 4]

`--cases` are numbers in CASES. Everything runs on the emulator's virtual clock, with its noise. The
gain of the power sensor, which differs from run to run, is left out of the windows: no interval
from within one run can know of it. It is what the comparison of runs is about.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator import virtual
from tuner.load.lengths import Uniform
from tuner.load.workload import LoadSpec, Workload, WorkloadSpec, load_workload
from tuner.measure.compare import Repeat, Verdict, compare
from tuner.measure.intervals import Interval, intervals
from tuner.measure.precision import Precision
from tuner.measure.reduce import reduce_run
from tuner.measure.steady_window import SteadyWindow, WindowPlan
from tuner.records import Load, Measurement, RawRun, RequestState, UnderWay

COVERED = (
    "energy_per_output_token_j",
    "output_throughput_tok_s",
    "request_throughput_req_s",
    "mean_power_w",
    "p50_tpot_ms",
    "p95_tpot_ms",
    "p99_tpot_ms",
    "p50_ttft_ms",
    "p95_ttft_ms",
    "p99_ttft_ms",
    "p99_e2el_ms",
)
PERCENTILE = "p95_tpot_ms"
SETTLING_LIFETIMES = 8.0
WINDOWS_PER_RUN = 10
GRID_LENGTHS = 20
PARTS = ("same", "coverage", "adaptive", "loose", "stretch")
LEAST_SAME = 60  # runs to draw from


class FixedWatch:
    """A window whose times are known before the load begins."""

    def __init__(self, start_s: float, end_s: float) -> None:
        self.window_start_s, self.window_end_s = start_s, end_s

    def started(self, now_s: float) -> None:
        pass

    def sent(self, now_s: float) -> None:
        pass

    def finished(self, now_s: float) -> None:
        pass


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A workload, a load and a configuration; `lifetime_s` is about that of its requests."""

    workload: str
    load: Load
    lifetime_s: float
    configuration: Configuration = field(default_factory=Configuration)

    def __str__(self) -> str:
        load = self.load
        offered = f"{load.request_rate:g}/s" if load.request_rate else f"x{load.concurrency}"
        device = "".join(f" {value} W" for value in self.configuration.device.values())
        return f"{self.workload} {offered}{device}"


SHORT = WorkloadSpec(
    description="Short requests, so that a test sees many of them.",
    prompt_tokens=Uniform(distribution="uniform", min=64, max=512),
    output_tokens=Uniform(distribution="uniform", min=8, max=96),
    load=LoadSpec(concurrency=16),
)


def capped(power_limit_w: float) -> Configuration:
    return Configuration(device={"power_limit_w": power_limit_w})


CASES = (
    Case("short", Load(concurrency=16), 0.5),
    Case("chat", Load(concurrency=8), 4.4),
    Case("chat", Load(concurrency=64), 9.2),
    Case("chat", Load(concurrency=64), 11.5, capped(400.0)),
    Case("chat", Load(request_rate=2.0), 4.7),
    Case("code", Load(concurrency=16), 2.6),
    Case("code", Load(concurrency=64), 6.1),
)

# the rest takes longer than 900 s to be known so well
TIGHT_CASES = CASES[:4]
WINDOWS_S = (120.0, 180.0, 180.0, 180.0, 180.0, 120.0, 120.0)


def workload(name: str, seed: int) -> Workload:
    spec = SHORT if name == "short" else load_workload(name).spec
    return Workload(name, spec.model_copy(update={"seed": seed}))


def simulate(case: Case, seed: int, start_s: float, end_s: float) -> RawRun:
    """Run a case with requests of its own."""
    requests = workload(case.workload, seed).requests()
    gpu, model = load_gpu("H100-SXM"), load_model("meta-llama/Llama-3.1-8B-Instruct")
    watch = FixedWatch(start_s, end_s)
    return virtual.simulate(model, gpu, case.configuration, requests, case.load, watch, seed=seed)


def cut(run: RawRun, start_s: float, end_s: float) -> RawRun:
    """Return what of a long run a shorter window would have seen."""
    requests = tuple(r for r in run.requests if r.ended_s > start_s and r.sent_s <= end_s)
    return replace(run, requests=requests, window_start_s=start_s, window_end_s=end_s)


def windows(run: RawRun, window_s: float) -> Iterator[RawRun]:
    start_s = run.window_start_s
    while start_s + window_s <= run.window_end_s + 1e-6:
        yield cut(run, start_s, start_s + window_s)
        start_s += window_s


def metrics_of(run: RawRun) -> Mapping[str, float]:
    result = reduce_run(run, {})
    assert isinstance(result, Measurement), result
    return result.metrics


@dataclass(slots=True)
class Coverage:
    """How often an interval was there, held the truth, and how wide it was."""

    windows: int = 0
    had: int = 0
    held: int = 0
    widths: list[float] = field(default_factory=list)

    def note(self, interval: Interval | None, truth: float) -> None:
        self.windows += 1
        if interval is not None:
            self.had += 1
            self.held += interval.low <= truth <= interval.high
            self.widths.append(interval.half_width / truth)

    @property
    def share(self) -> float:
        return self.held / self.had if self.had else math.nan


def long_runs(case: Case, length_s: float, count: int) -> list[RawRun]:
    """Return runs of different requests whose whole length is steady."""
    warmup_s = SETTLING_LIFETIMES * case.lifetime_s
    return [simulate(case, seed, warmup_s, warmup_s + length_s) for seed in range(count)]


def coverage(runs: Sequence[RawRun], window_s: float) -> dict[str, Coverage]:
    """Cut runs into windows; the truth is that of all runs together."""
    whole = [metrics_of(run) for run in runs]
    truth = {name: float(np.mean([m[name] for m in whole])) for name in COVERED}
    found = {name: Coverage() for name in COVERED}
    for run in runs:
        for window in windows(run, window_s):
            known = intervals(window, {})
            for name, tally in found.items():
                tally.note(known.get(name), truth[name])
    return found


def replay(run: RawRun, watch: SteadyWindow, *, seen: bool = True) -> None:
    """Tell a watch of a run in time order, as a driver would, until it ends the window.

    `seen`: also of tokens, energy and latencies, and which requests are under way when it asks.
    """
    events = [(r.sent_s, 1, "sent", r) for r in run.requests]
    events += [(r.ended_s, 2, "ended", r) for r in run.requests if r.state is RequestState.DONE]
    now_s = 0.0
    if seen:
        token_s = np.sort(np.concatenate([r.token_times_s for r in run.requests]))
        tokens = np.searchsorted(token_s, run.power.times_s, side="right")
        samples = zip(run.power.times_s, run.power.energy_j, tokens, strict=True)
        events += [(t, 0, "sample", (j, n)) for t, j, n in samples]  # type: ignore[misc]
        columns = Columns(run)
        watch.asks(lambda: columns.under_way(now_s))
    events.sort(key=lambda event: event[:2])
    watch.started(0.0)
    for at_s, _, kind, what in events:
        now_s = at_s
        end_s = watch.window_end_s
        if end_s is not None and now_s >= end_s:
            return
        if kind == "sent":
            watch.sent(now_s)
        elif kind == "sample":
            watch.sampled(now_s, *what)  # type: ignore[misc]
        else:
            times_s = what.token_times_s
            if seen:
                watch.answered(now_s, what.scheduled_s, float(times_s[0]), times_s.size)
            watch.finished(now_s)


class Columns:
    """The requests of a run as columns, to tell which were under way at any time."""

    def __init__(self, run: RawRun) -> None:
        rows = run.requests
        self._sent_s = np.array([r.sent_s for r in rows])
        self._scheduled_s = np.array([r.scheduled_s for r in rows])
        cut = [r.state is not RequestState.DONE for r in rows]
        self._ended_s = np.where(cut, np.inf, [r.ended_s for r in rows])
        firsts = [r.token_times_s[0] if r.token_times_s.size else np.inf for r in rows]
        self._first_s = np.array(firsts)
        self._tokens = np.array([float(r.output_tokens) for r in rows])

    def under_way(self, now_s: float) -> UnderWay:
        keep = (self._sent_s <= now_s) & (self._ended_s > now_s)
        first_s = self._first_s[keep]
        return UnderWay(
            self._scheduled_s[keep],
            np.where(first_s <= now_s, first_s, np.nan),
            self._tokens[keep],
        )


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
