"""A store of 10,000 trials: what each step of `tuner resume` takes on it, in seconds of CPU.

Rebuilds a store of 101 trials from a measurement log and multiplies its rows (Optuna's own way in
takes some 50 ms a trial), then times what a resume does before its first launch, and one trial's
share of the loop; each also on a tenth of the trials, so that what grows faster than the store is
seen.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from helpers.scripted import Recorder, ScriptedEvaluator
from helpers.testbed import OWNER

from tuner.configuration import Configuration
from tuner.metrics import METRICS
from tuner.records import Failure, FailureKind, Measurement, Source, Timing
from tuner.spec.search_space import SearchSpace, load_space
from tuner.spec.study import StudySpec
from tuner.store import Store, StudyIdentity
from tuner.store.log.log_records import LoggedResult, LoggedStudy
from tuner.store.log.measurement_log import MeasurementLog, encoded, read_log
from tuner.store.upkeep.backup import back_up
from tuner.store.upkeep.checks import check_file
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.durability.rebuild import rebuild
from tuner.study.durability.recovery import recover
from tuner.study.loop import StudyRun
from tuner.study.proposals.proposals import Proposals
from tuner.study.proposals.stopping import stagnation
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

SPEC = StudySpec(
    model="m", slo=("p99_tpot_ms<=40", "p99_ttft_ms<=500"), trials=20_000, space="power"
)


_BASE = 100  # trials that are really told; the others are copies of them
_OPTUNAS = ("trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes")


def main() -> None:
    """Print a table of seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=None, help="Where to build the stores.")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-store-", dir=asked.folder))
    try:
        small = measured(folder / "small", asked.trials // 10)
        large = measured(folder / "large", asked.trials)
    finally:
        shutil.rmtree(folder)
    print(f"{'step':44}{asked.trials // 10:>10}{asked.trials:>10}   growth")
    for step, seconds in large.items():
        growth = seconds / small[step] if small[step] > 1e-4 else float("nan")
        print(f"{step:44}{small[step]:>9.3f}s{seconds:>9.3f}s{growth:>8.1f}x")
    resume_s = sum(s for step, s in large.items() if step.startswith("resume:"))
    print(f"tuner resume, before its first launch: {resume_s:.2f} s (target 5 s)")


def measured(folder: Path, n_trials: int) -> dict[str, float]:
    """Build a store of so many trials and time the steps, s of CPU: other jobs do not count."""
    space = load_space(SPEC.space)
    log = MeasurementLog(folder / "old.db.measured" / "s.jsonl")
    log.open()
    write_log(log, space, _BASE + 1)
    log.close()
    took: dict[str, float] = {}
    path = folder / "t.db"

    def timed(name: str, work: Callable[[], object]) -> object:
        began_s = time.process_time()
        done = work()
        took[name] = time.process_time() - began_s
        return done

    timed(f"rebuild {_BASE + 1} trials from the log", lambda: rebuild(log.path.parent, path, print))
    log = MeasurementLog(folder / "t.db.measured" / "s.jsonl")
    multiply(path, log, n_trials // _BASE)
    print(f"{n_trials} trials: {path.stat().st_size / 2**20:.0f} MiB", flush=True)
    timed("backup", lambda: back_up(path))
    timed("store check: the file", lambda: check_file(path))
    steps(timed, path, space, log)
    return took


def multiply(path: Path, log: MeasurementLog, times: int) -> None:
    """Have all trials but the first so many times, in both tables and in the log."""
    records = [line.record for line in read_log(log.path)]
    base = [r for r in records if isinstance(r, LoggedResult) and r.number > 0]
    with log.path.open("ab") as file:
        for k in range(1, times):
            file.writelines(encoded(replace(r, number=r.number + k * _BASE)) for r in base)
    with closing(sqlite3.connect(path)) as database, database:
        for k in range(1, times):
            for table, key in (("tuner_trials", "id"), ("trials", "trial_id")):
                copy_rows(database, table, key, {"number": k * _BASE}, "number")
            for table in _OPTUNAS:
                key = database.execute(f"PRAGMA table_info({table})").fetchone()[1]
                # trial ids go up by one with the numbers, from 1
                copy_rows(database, table, key, {"trial_id": k * _BASE}, "trial_id - 1")


def copy_rows(
    database: sqlite3.Connection, table: str, key: str, added: dict[str, int], number: str
) -> None:
    """Copy the rows of trials 1 to 100 with numbers added to columns, under new keys."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != key]
    values = [f"{c} + {added[c]}" if c in added else c for c in columns]
    database.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table} "
        f"WHERE {number} BETWEEN 1 AND {_BASE} ORDER BY {key}"
    )


def steps(
    timed: Callable[[str, Callable[[], object]], object],
    path: Path,
    space: SearchSpace,
    log: MeasurementLog,
) -> None:
    """Do what a resume does, in its order, then one trial."""
    listener = Recorder()
    store = timed("resume: open and check the file", lambda: Store.open(path, create=False))
    assert isinstance(store, Store)
    storage = timed("resume: Optuna's storage", store.optuna_storage)
    proposals = timed(
        "resume: Optuna's study",
        lambda: Proposals(
            storage,  # type: ignore[arg-type]
            "s",
            space,
            SPEC.slos,
            SPEC.objectives,
            "random",
            0,
        ),
    )
    assert isinstance(proposals, Proposals)
    timed("resume: is there a default?", lambda: proposals.has_baseline)
    fleet = Fleet([Worker(ScriptedEvaluator(), OWNER)])
    run = StudyRun("s", SPEC, store, proposals, fleet, listener)
    timed("resume: what only the log knows", lambda: recover("s", SPEC, store, log, listener.note))
    timed("resume: reconcile", run.reconcile)
    points = timed("resume: points for the stop rule", run._points)
    timed("loop: the stop rule", lambda: stagnation(points))  # type: ignore[arg-type]
    confirmation = ConfirmationRun("s", SPEC, store, fleet, listener)
    timed("loop: the confirmation's reserve", lambda: confirmation.reserve_s)
    timed("loop: how much is spent", lambda: run.progress)
    timed("loop: probe the store", store.probe)
    asked = timed("loop: ask (random)", proposals.ask)
    number = asked.number  # type: ignore[attr-defined]
    timed("loop: note what it took", lambda: proposals.note_timing(number, Timing(1.0, None)))
    timed("loop: tell", lambda: proposals.tell_measured(number, measurement(100.0, 0.3)))


def write_log(log: MeasurementLog, space: SearchSpace, n_trials: int) -> None:
    """Write a log of random configurations, each tenth of which does not start."""
    identity = StudyIdentity(
        name="s",
        created_at=datetime.now(UTC),
        model="m",
        workload_name="chat",
        workload_sha256="w",
        space_name=space.name,
        space_sha256=space.sha256(),
        slos=tuple(slo.text for slo in SPEC.slos),
        objectives=tuple(o.text for o in SPEC.objectives),
        evaluation="live",
        server_version="1.0",
        gpu="GPU",
        driver=None,
        energy_source=Source.EMULATED,
        latency_source=Source.EMULATED,
        budget_trials=SPEC.trials,
        budget_s=None,
        spent_s=0.0,
        spec_json=SPEC.model_dump(mode="json"),
    )
    log.append(LoggedStudy(identity, {"power_limit_w": 700, "sm_clock_mhz": 1980}))
    random = np.random.default_rng(0)
    at = datetime.now(UTC)
    for number in range(n_trials):
        parameters = {
            name: random_value(random, distribution)
            for name, distribution in space.distributions().items()
        }
        configuration = space.configuration(parameters) if number else Configuration()
        result: Measurement | Failure = measurement(*random.uniform([10, 0.1], [80, 1.0]))
        if number and random.random() < 0.1:
            result = Failure(FailureKind.CONFIGURATION, "no memory for the cache blocks")
        log.append(
            LoggedResult(
                number,
                configuration,
                OWNER,
                at + timedelta(minutes=number),
                at + timedelta(minutes=number + 1),
                result,
                Timing(60.0, None),
                60.0,
                encoded_raw=None,
            )
        )


def random_value(random: np.random.Generator, distribution: object) -> int | float | str:
    """Return a random value of an Optuna distribution, on its grid."""
    internal = getattr(distribution, "choices", None)
    if internal is not None:
        return internal[int(random.integers(len(internal)))]  # type: ignore[no-any-return]
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    step = getattr(distribution, "step", None)
    if step is None:
        return float(random.uniform(low, high))
    return low + step * int(random.integers(round((high - low) / step) + 1))  # type: ignore[no-any-return]


def measurement(tpot_ms: float, energy_j: float) -> Measurement:
    """Return a measurement with every metric there is."""
    metrics = dict.fromkeys(METRICS, 1.0) | {
        "p99_tpot_ms": float(tpot_ms),
        "energy_per_output_token_j": float(energy_j),
    }
    return Measurement(metrics, 0.0, 60.0, Source.EMULATED, Source.EMULATED)


if __name__ == "__main__":
    main()
