"""How long reading takes, start-up included: `tuner recommend` on a large store, `tuner --help`.

The store has 20 studies of 500 trials, each with raw records. Every command runs in a new process.
The shortest of several runs is what the command needs; the others also waited for somebody else.
Beside it stands its processor time, and how long a bare `python -c pass` takes on this machine.

Usage: python benchmarks/bench_reading.py [--repeats 7] [--store FILE]
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
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
TARGETS_S = {"recommend": 0.6, "recommend --format json": 0.6, "--help": 0.4}


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


def least_s(words: list[str], repeats: int) -> tuple[float, float]:
    """Return the shortest wall time and the least processor time of several runs, s."""
    wall_s, processor_s = math.inf, math.inf
    for _ in range(repeats):
        begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall_s = min(wall_s, time.monotonic() - begin)
        used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        processor_s = min(processor_s, used_s)
    return wall_s, processor_s


def main() -> None:
    """Print what each command took, and by how much it keeps its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--store", type=Path, help="keep the store in this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = asked.store or Path(folder) / "large.db"
        if not path.exists():
            fill(path)
        print(f"store: {STUDIES} studies x {TRIALS} trials, {path.stat().st_size / 2**20:.0f} MiB")
        bare_s, _ = least_s([sys.executable, "-c", "pass"], asked.repeats)
        print(f"python -c pass {bare_s:.2f} s")
        tuner = str(Path(sys.executable).with_name("tuner"))
        for command, target_s in TARGETS_S.items():
            where = [] if command == "--help" else ["--store", str(path)]
            wall_s, used_s = least_s([tuner, *command.split(), *where], asked.repeats)
            share = f"{wall_s / target_s:.2f} of the target of {target_s:g} s"
            print(f"tuner {command}: {wall_s:.2f} s ({used_s:.2f} s of a processor), {share}")


if __name__ == "__main__":
    main()
