"""The report of a night of 2,000 trials: how large it is, and how long until it is seen.

Time is counted by the browser from the start of the navigation until the front is drawn, in a fresh
headless Chromium each time; beside it, in the same run, a report of 20 trials: the ratio is what
the trials cost, the rest is Plotly and the machine.

    PYTHONPATH=tests python -m benchmarks.bench_report
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
from helpers.browser import chromium
from helpers.records import IDENTITY, OWNER

from tuner.analysis.report_data.report_data import read_report_data
from tuner.configuration import Configuration, Value
from tuner.metrics import METRICS
from tuner.records import Failure, FailureKind, Measurement, Source, Timing
from tuner.report.html.page import write_page
from tuner.store import Store

LIMIT_S, LIMIT_MB = 3.0, 12.0
REPEATS = 3
DRAWN = "document.getElementById('front').dataset.drawn === 'yes'"


def fill(path: Path, count: int) -> None:
    """A night of ten knobs whose trials have every metric; one in twenty failed."""
    chance = random.Random(0)
    with Store.open(path, create=True) as store:
        store.create_study(replace(IDENTITY, budget_trials=count))
        for number in range(count):
            flags: dict[str, Value] = {
                f"knob_number_{k}": chance.choice([64, 128, 256, 0.9, True]) for k in range(10)
            }
            whole = Configuration(flags=flags if number else {})
            store.begin_trial("night", number, whole, baseline=number == 0, owner=OWNER)
            if number % 20 == 19:
                failure = Failure(FailureKind.CONFIGURATION, f"out of memory in attempt {number}")
                store.save_failure("night", number, failure)
                continue
            metrics = {name: chance.uniform(1.0, 100.0) for name in METRICS}
            found = Measurement(metrics, 0.0, 60.0, Source.MEASURED, Source.MEASURED)
            store.save_measurement("night", number, found, None, timing=Timing(70.0, 9.0))


def cpu_s() -> float:
    """What the browser has computed so far, all of its processes together."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(t.user + t.system for t in times)


async def opened_s(report: Path) -> tuple[float, float]:
    """Until the front is seen: wall time, and CPU time of the browser."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # a child writes on
        async with chromium(Path(profile)) as page:
            await page.resize(1280, 900)
            before_s = cpu_s()
            await page.open(report.as_uri())
            await page.until(DRAWN)
            computed_s = cpu_s() - before_s
            marked = "performance.getEntriesByName('front-drawn')[0].startTime"
            return float(await page.eval(marked)) / 1e3, computed_s


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        opened = {}
        for count in (20, 2000):
            store, report = Path(folder) / f"{count}.db", Path(folder) / f"{count}.html"
            fill(store, count)
            began_s = time.monotonic()
            with Store.open(store, create=False) as opened_store:
                size_mb = write_page(read_report_data(opened_store, "night"), report) / 1e6
            made_s = time.monotonic() - began_s
            runs = [asyncio.run(opened_s(report)) for _ in range(REPEATS)]
            opened[count] = statistics.median(wall_s for wall_s, _ in runs)
            computed_s = statistics.median(cpu for _, cpu in runs)
            print(
                f"{count:5} trials: {size_mb:.1f} MB (at most {LIMIT_MB:g}), made in {made_s:.1f} "
                f"s, front seen after {opened[count]:.2f} s (at most {LIMIT_S:g}), of which the "
                f"browser computed {computed_s:.2f} s; load of the machine {os.getloadavg()[0]:.1f}"
            )
        ratio = opened[2000] / opened[20] if opened[20] else math.nan
        print(f"2,000 trials open in {ratio:.2f} times the time of 20")


if __name__ == "__main__":
    main()
