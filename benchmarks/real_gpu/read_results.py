"""Tables from the stores that a GPU machine's jobs left: what docs/h200.md reports.

    python benchmarks/real_gpu/read_results.py FOLDER

FOLDER is what `machine/keep.py join` unpacked. Prints Markdown.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.stats import t as students_t

from tuner.analysis.confirmed_front import confirmed_front
from tuner.records import Measurement, RawRun, Timing
from tuner.report.terminal.front_table import show_front
from tuner.store import RepeatRow, Store, TrialRow

ENERGY = "energy_per_output_token_j"
FIGURES = (ENERGY, "p99_tpot_ms", "p99_ttft_ms")


@dataclass(frozen=True, slots=True)
class Zeus:
    """A window that ZeusMonitor measured on one GPU, on the clock of the tuner's samples."""

    start_s: float
    end_s: float
    energy_j: float


def main(folder: Path) -> None:
    """Print every table that the folder has results for."""
    watched = list(_lines(folder / "watch.csv"))
    zeus = zeus_windows(watched)
    errors: list[float] = []
    for path in sorted(folder.glob("*.db")):
        with Store.open(path, create=False) as store:
            for summary in store.studies():
                _show_study(store, summary.identity.name)
                errors += zeus_errors(store, summary.identity.name, zeus)
    _show_errors(errors)
    _show_same(folder / "same")
    _show_clean(folder)
    _show_temperatures(watched)


def _show_study(store: Store, name: str) -> None:
    identity = store.study(name)
    print(f"\n## {name}: {', '.join(identity.slos)}, GPU {', '.join(identity.gpu_uuids)}\n")
    trials = store.trials(name)
    print("```")
    show_front(Console(width=110), confirmed_front(identity, trials, store.repeats.of(name)))
    print("```")
    print(
        "\n| trial | why | settings | J/token | p99 TPOT, ms | p99 TTFT, ms | launch, s | all, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    settings = {trial.number: _settings(trial) for trial in trials}
    for trial in trials:
        print(f"| {trial.number} | search | {settings[trial.number]} | {_figures(trial)} |")
    for repeat in store.repeats.of(name):
        print(f"| {repeat.trial} | {repeat.kind} | {settings[repeat.trial]} | {_figures(repeat)} |")
    _show_seconds(store, name, trials)


def _settings(trial: TrialRow) -> str:
    return " ".join(f"{k}={v}" for k, v in trial.configuration.knobs().items()) or "default"


def _figures(row: TrialRow | RepeatRow) -> str:
    return f"{_metrics(row)} | {_seconds(row.timing)}"


def _metrics(row: TrialRow | RepeatRow) -> str:
    if row.measurement is None:
        return f"{'' if row.failure is None else row.failure.reason} | | "
    values = [row.measurement.metrics.get(name, math.nan) for name in FIGURES]
    early = " (ended early)" if row.measurement.ended_early else ""
    return f"{values[0]:.4f}{early} | {values[1]:.1f} | {values[2]:.0f}"


def _seconds(timing: Timing | None) -> str:
    if timing is None:
        return " | "
    launch = "" if timing.launch_s is None else f"{timing.launch_s:.1f}"
    return f"{launch} | {timing.elapsed_s:.1f}"


def _show_seconds(store: Store, name: str, trials: Sequence[TrialRow]) -> None:
    """Print launches, and for how long no load ran in an evaluation on a warm server."""
    launches: dict[str, list[float]] = defaultdict(list)
    for row in [*trials, *store.repeats.of(name)]:
        if row.timing is not None and row.timing.launch_s is not None:
            launches[type(row).__name__].append(row.timing.launch_s)
    for kind, seconds in launches.items():
        listed = ", ".join(f"{s:.0f}" for s in seconds)
        print(
            f"\nLaunches ({kind}), s, in order: {listed}; median {statistics.median(seconds):.1f}"
        )
    idle = []
    for trial in trials:
        raw = store.raw_run(name, trial.number)
        if raw is None or trial.timing is None or len(raw.power.times_s) < 2:
            continue
        load_s = float(raw.power.times_s[-1] - raw.power.times_s[0])
        idle.append(trial.timing.elapsed_s - (trial.timing.launch_s or 0.0) - load_s)
    if idle:
        print(
            f"Without load and launch, s: median {statistics.median(idle):.1f}, max {max(idle):.1f}"
        )


def _lines(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["unix_s"] and row["counter_j"]:  # the last line may be cut
                    yield row


def zeus_windows(rows: Iterable[dict[str, str]]) -> dict[str, list[Zeus]]:
    """Return Zeus's windows by the GPU's UUID."""
    found: dict[str, list[Zeus]] = defaultdict(list)
    for row in rows:
        if row["zeus_j"]:
            start_s, end_s = float(row["zeus_start_s"]), float(row["zeus_end_s"])
            found[row["uuid"]].append(Zeus(start_s, end_s, float(row["zeus_j"])))
    return found


def zeus_errors(store: Store, name: str, zeus: dict[str, list[Zeus]]) -> list[float]:
    """Return (our energy / Zeus's - 1) of each of Zeus's windows within a load on one GPU."""
    only = "+".join(store.study(name).gpu_uuids)  # empty in a study on several cards
    runs = [(t.owner.card, store.raw_run(name, t.number)) for t in store.trials(name)]
    runs += [
        (r.owner.card, store.repeats.raw_run(name, r.number)) for r in store.repeats.every(name)
    ]
    return [
        error
        for card, raw in runs
        if raw is not None
        for error in _errors_in(raw, zeus[card or only])
    ]


def _errors_in(raw: RawRun, windows: Iterable[Zeus]) -> Iterator[float]:
    times_s, energy_j = raw.power.times_s, raw.power.energy_j
    if len(times_s) == 0:
        return
    for window in windows:
        if times_s[0] <= window.start_s and window.end_s <= times_s[-1]:
            ends_j = np.interp([window.start_s, window.end_s], times_s, energy_j)
            yield float(ends_j[1] - ends_j[0]) / window.energy_j - 1.0


def _show_errors(errors: Sequence[float]) -> None:
    if errors:
        sizes = np.abs(errors)
        print(f"\n## Energy against ZeusMonitor, {len(errors)} windows of 15 s under load\n")
        print(
            f"mean {np.mean(errors):+.3%}; absolute: median {np.median(sizes):.3%}, "
            f"95th percentile {np.percentile(sizes, 95):.3%}, largest {sizes.max():.3%}"
        )


def _show_same(folder: Path) -> None:
    """Print the defaults' repeats: their spread, coverage, and what ordinary weights change."""
    found = {kind: _measured(folder, f"*-{kind}.json") for kind in ("dummy", "ordinary")}
    if not found["dummy"]:
        return
    print("\n## vLLM's defaults at 10 requests/s, each on a launch of its own\n")
    print("| weights | metric | n | mean | c.v. | stated 95 % intervals that hold the mean |")
    print("|---|---|---|---|---|---|")
    for kind, measured in found.items():
        for figure in FIGURES if measured else ():
            values = [one["metrics"][figure] for one in measured]
            mean = statistics.fmean(values)
            spread = statistics.stdev(values) / mean if len(values) > 1 else math.nan
            stated = [i for one in measured if (i := one["intervals_95"].get(figure))]
            held = sum(low <= mean <= high for low, high in map(_ends, stated))
            covered = f"{held} of {len(stated)}" if stated else "none stated"
            print(f"| {kind} | {figure} | {len(values)} | {mean:.4f} | {spread:.2%} | {covered} |")
    pairs = list(zip(*(found[kind] for kind in ("dummy", "ordinary")), strict=False))
    ratios = [math.log(b["metrics"][ENERGY] / a["metrics"][ENERGY]) for a, b in pairs]
    if len(ratios) > 1:
        print(f"\nOrdinary against dummy weights, J/token, in turn: {_ratio(ratios)}")


def _ends(interval: object) -> tuple[float, float]:
    if isinstance(interval, dict):
        return float(interval["low"]), float(interval["high"])
    assert isinstance(interval, list)
    return float(interval[0]), float(interval[1])


def _measured(folder: Path, pattern: str) -> list[dict[str, dict[str, float]]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(pattern))]


def _ratio(logs: Sequence[float]) -> str:
    """Return a mean ratio and its 95 % interval, as a change in percent."""
    mean = statistics.fmean(logs)
    half = students_t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, middle, high = (math.expm1(x) for x in (mean - half, mean, mean + half))
    return f"{middle:+.2%} ({low:+.2%} to {high:+.2%}, {len(logs)} pairs)"


def _show_clean(folder: Path) -> None:
    """Print J/token of clean launches over that of the same trial under live limits."""
    store_path, files = folder / "night.db", sorted((folder / "clean").glob("*.json"))
    if not files:
        return
    with Store.open(store_path, create=False) as store:
        live = {t.number: t.measurement for t in store.trials("night")}
    print("\n## Clean launches against live limits, the same arrivals\n")
    print("| trial | metric | live | clean | clean / live - 1 |")
    print("|---|---|---|---|---|")
    numbers = sorted({int(path.name.partition("-")[0]) for path in files})
    for number in numbers:
        clean = _measured(folder / "clean", f"{number}-*.json")
        for figure in FIGURES:
            _show_clean_row(number, figure, live[number], [one["metrics"] for one in clean])


def _show_clean_row(
    number: int, figure: str, live: Measurement | None, clean: Sequence[dict[str, float]]
) -> None:
    assert live is not None
    values = [metrics[figure] for metrics in clean]
    listed = ", ".join(f"{value:.4g}" for value in values)
    change = statistics.fmean(values) / live.metrics[figure] - 1.0
    print(f"| {number} | {figure} | {live.metrics[figure]:.4g} | {listed} | {change:+.2%} |")


def _show_temperatures(rows: Sequence[dict[str, str]]) -> None:
    """Print each GPU's temperature and power by the minute, of seconds under load."""
    by_minute: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if float(row["power_w"]) > 300.0:
            minute = int(float(row["unix_s"])) // 60
            pair = (float(row["temperature_c"]), float(row["power_w"]))
            by_minute[row["gpu"], minute].append(pair)
    if by_minute:
        print("\n## Temperature and power, medians of the seconds above 300 W\n")
        print("| GPU | minute | seconds | temperature, C | power, W |")
        print("|---|---|---|---|---|")
    first = min((minute for _, minute in by_minute), default=0)
    for (gpu, minute), pairs in sorted(by_minute.items()):
        warm, power = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {gpu} | {minute - first} | {len(pairs)} | {warm:.0f} | {power:.0f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
