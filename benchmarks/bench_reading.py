"""How long reading takes, start-up included: `tuner recommend` on a large store, `tuner --help`.

The store has 20 studies of 500 trials, each with raw records. Every command runs in a new process,
whose user and system time count, so that what else runs on the machine matters less. With
`--against` another checkout runs in turn with this one; the ratio is the median of the pairs'.

Usage: python benchmarks/bench_reading.py [--repeats 9] [--store FILE] [--against CHECKOUT]
"""

from __future__ import annotations

import argparse
import compileall
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from tuner.configuration import Configuration
from tuner.metrics import METRICS
from tuner.records import PowerTimeline, RawRun, ServerTimeline, Source
from tuner.store import Store, StudyIdentity, schema
from tuner.store.raw import encode

STUDIES, TRIALS = 20, 500
SAMPLES = 900
OURS = Path(__file__).parents[1]
TARGETS_S = {"recommend": 0.6, "recommend --format json": 0.6, "--help": 0.3}


def identity(n: int) -> StudyIdentity:
    return StudyIdentity(
        name=f"night-{n}",
        created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n),
        model="meta-llama/Llama-3.1-8B-Instruct",
        workload_name="chat",
        workload_sha256="a" * 64,
        space_name="power",
        space_sha256="b" * 64,
        slos=("p99_tpot_ms<=25", "p99_ttft_ms<=500"),
        objectives=("energy_per_output_token_j", "p99_tpot_ms"),
        evaluation="live",
        server_version="0.11.0",
        gpu="NVIDIA H100 80GB HBM3",
        driver="570.86",
        energy_source=Source.MEASURED,
        latency_source=Source.MEASURED,
        budget_trials=TRIALS,
        budget_s=None,
        spent_s=28800.0,
        spec_json={"confirm": False, "request_rate": 4.0},
        finished_at=datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=n),
    )


def trial(study_id: int, number: int, chance: random.Random) -> dict[str, Any]:
    speed = chance.random()
    metrics = {name: 100.0 * chance.random() for name in METRICS}
    metrics |= {
        "energy_per_output_token_j": 0.1 + 0.2 * speed * speed + 0.02 * chance.random(),
        "p99_tpot_ms": 35.0 - 20.0 * speed + 2.0 * chance.random(),
        "p99_ttft_ms": 600.0 - 300.0 * speed,
        "output_throughput_tok_s": 2500.0 + 100.0 * speed,
        "mean_power_w": 350.0,
    }
    knobs = Configuration(
        flags={"max_num_seqs": 2 ** chance.randint(3, 10)},
        device={"power_limit_w": chance.randrange(200, 701, 25)},
    )
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    return {
        "study_id": study_id,
        "number": number,
        "configuration": (Configuration() if number == 0 else knobs).to_json(),
        "baseline": number == 0,
        "state": "measured",
        "started_at": begin,
        "ended_at": begin + timedelta(minutes=1),
        "owner_pid": 1,
        "owner_boot_id": "boot",
        "owner_host": "host",
        "owner_run_tag": "tag",
        "metrics": metrics,
        "window_start_s": 10.0,
        "window_end_s": 70.0,
        "energy_source": "measured",
        "latency_source": "measured",
        "warnings": [],
    }


def raw_run() -> RawRun:
    """Return records that hardly compress, as real ones."""
    chance = np.random.default_rng(0)
    times_s, power_w, energy_j = (np.sort(chance.random(SAMPLES)) * 80.0 for _ in range(3))
    nothing = np.array([])
    return RawRun(
        (),
        PowerTimeline(times_s, power_w, energy_j, Source.MEASURED),
        ServerTimeline(nothing, nothing, nothing),
        10.0,
        70.0,
        Source.MEASURED,
    )


def fill(path: Path) -> None:
    """Write the store: its rows in bulk, for one durable transaction each would take an hour."""
    with Store.open(path, create=True) as store:
        for n in range(STUDIES):
            store.create_study(identity(n))
    chance = random.Random(0)
    with Store.open(path, create=False) as store, store.session() as session:
        for study_id in session.scalars(select(schema.STUDIES.c.id)).all():
            rows = [trial(study_id, n, chance) for n in range(TRIALS)]
            session.execute(insert(schema.TRIALS), rows)
        ids = session.scalars(select(schema.TRIALS.c.id)).all()
        encoded = encode(raw_run())
        raw_runs = [{"trial_id": i, "encoded": encoded} for i in ids]
        session.execute(insert(schema.RAW_RUNS), raw_runs)


def used_s(words: list[str], tree: Path) -> float:
    """Return the processor time of one run of `tuner WORDS` from a tree, s."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "tuner", *words],
        check=True,
        capture_output=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print what each command took, by how much it keeps its target, and beside the other tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--store", type=Path, help="keep the store in this file")
    parser.add_argument("--against", type=Path, help="another checkout, run in turn with this one")
    asked = parser.parse_args()
    trees = [tree.resolve() for tree in (OURS, asked.against) if tree is not None]
    for tree in trees:  # as pip does; else a checkout that is never written to compiles each time
        compileall.compile_dir(tree / "tuner", quiet=1)
    with tempfile.TemporaryDirectory() as folder:
        path = (asked.store or Path(folder) / "large.db").absolute()
        if not path.exists():
            fill(path)
        print(f"store: {STUDIES} studies x {TRIALS} trials, {path.stat().st_size / 2**20:.0f} MiB")
        for command, target_s in TARGETS_S.items():
            words = command.split()
            words += [] if command == "--help" else ["--store", str(path)]
            runs = [[used_s(words, tree) for tree in trees] for _ in range(asked.repeats)]
            ours_s = [run[0] for run in runs]
            middle_s = statistics.median(ours_s)
            line = f"tuner {command}: {middle_s:.2f} s (least {min(ours_s):.2f}), "
            line += f"{middle_s / target_s:.2f} of the target of {target_s:g} s"
            if asked.against:
                theirs_s = statistics.median(run[1] for run in runs)
                ratio = statistics.median(run[0] / run[1] for run in runs)
                line += f"; {ratio:.2f} of the other tree's {theirs_s:.2f} s"
            print(line)


if __name__ == "__main__":
    main()
