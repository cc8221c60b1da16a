"""Workers, their guardians and the driver of a study on several cards, killed at seeded instants.

`CARD_KILLS` says how many (default 6). After each kill the study is resumed until it is finished.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tuner.store import ProbeKind, Store
from tuner.store.log.log_records import LoggedResult
from tuner.store.log.measurement_log import read_log

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("CARD_KILLS", "6"))
BENCH, GUARDIAN = "tuner.evaluation.remote.bench_process", "guardian_process"
TRIALS = 6
RUN = (
    "run --emulate H100-SXM --live --cards 2 --model Qwen/Qwen3-8B --workload smoke "
    "--concurrency 4 --space power --slo p99_tpot_ms<=100 --window-s 1.5 --sampler random "
    f"--trials {TRIALS} --no-confirm --no-checks --study s --yes"
)


class Night:
    """One study in a folder of its own, whose processes are known by their state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "s.db"
        self.state = folder / "state"
        self.log = folder / "out.log"

    def start(self, words: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "tuner", *words.split(), "--store", str(self.store)],
                env={**os.environ, "TUNER_STATE_DIR": str(self.state)},
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )

    def processes(self, word: str = "") -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get("TUNER_STATE_DIR") == str(self.state)
                if is_ours and word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def finish(self) -> None:
        """Resume until the study is finished; a run may end because its guardian was killed."""
        for _ in range(5):
            run = self.start("resume s --yes" if self.is_stored() else RUN)
            if run.wait(600) == 0:
                return
        raise AssertionError(self.log.read_text())

    def is_stored(self) -> bool:
        if not self.store.exists():
            return False
        with Store.open(self.store, create=False) as store:
            return any(s.identity.name == "s" for s in store.studies())


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_kill_costs_what_it_interrupts(tmp_path: Path, seed: int) -> None:
    night, draw = Night(tmp_path), random.Random(seed)
    run = night.start(RUN)
    victim = (BENCH, GUARDIAN, "driver")[seed % 3]
    deadline_s = time.monotonic() + 300.0
    while len(night.processes(BENCH)) < 2 or not night.processes("tuner.emulator"):
        assert run.poll() is None and time.monotonic() < deadline_s, night.log.read_text()
        time.sleep(0.1)
    time.sleep(draw.uniform(0.0, 20.0))
    if victim == "driver":
        run.kill()
    elif targets := night.processes(victim):
        draw.choice(targets).kill()
    run.wait(600)
    night.finish()
    end_s = time.monotonic() + 60.0
    while left := night.processes():
        assert time.monotonic() < end_s, [p.cmdline() for p in left]
        time.sleep(0.2)
    require_nothing_lost(night)


def require_nothing_lost(night: Night) -> None:
    with Store.open(night.store, create=False) as store:
        trials, probes = store.trials("s"), store.repeats.probes("s")
        assert store.study("s").finished_at is not None
        (path,) = store.log_path("s", night.state).parent.glob("*.jsonl")
    records = [r.record for r in read_log(path) if isinstance(r.record, LoggedResult)]
    logged = [r for r in records if r.repeat is None]
    numbers = [r.number for r in logged]
    assert len(numbers) == len(set(numbers))  # each trial was measured once
    kept = {t.number for t in trials if t.measurement is not None}
    ended = kept | {t.number for t in trials if t.failure is not None}
    assert set(numbers) <= ended  # nothing measured is lost
    assert len(kept) >= TRIALS
    assert not [t for t in trials if t.state == "running"]
    cards = {t.owner.card for t in trials} | {p.owner.card for p in probes}
    assert cards <= {"H100-SXM:0", "H100-SXM:1"}
    assert all(p.kind is ProbeKind.CARD for p in probes)
