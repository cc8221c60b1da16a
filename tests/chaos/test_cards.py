"""Workers, their guardians and the driver of a study on several cards, killed at seeded instants.

`CARD_KILLS` says how many (default 6). After each kill the study is resumed until it is finished.
The workers have served emulators. `test_ray.py` kills those on Ray.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from helpers.chaos.cards_night import CardsNight, require_nothing_lost

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("CARD_KILLS", "6"))
BENCH, GUARDIAN = "evaluation.remote.bench_process", "guardian_process"
SERVED = (
    "run --emulate H100-SXM --live --cards 2 --model Qwen/Qwen3-8B --workload smoke "
    "--concurrency 4 --space power --slo p99_tpot_ms<=100 --window-s 1.5 --sampler random "
    "--trials 6 --no-confirm --no-checks"
)


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_kill_costs_what_it_interrupts(tmp_path: Path, seed: int) -> None:
    night, draw = CardsNight(tmp_path, SERVED, os.environ), random.Random(seed)
    run = night.start()
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
    night.code_of(run, 600)
    night.finish()
    require_gone(night)
    require_nothing_lost(night, 6)


def require_gone(night: CardsNight) -> None:
    end_s = time.monotonic() + 60.0
    while left := night.processes():
        assert time.monotonic() < end_s, [p.cmdline() for p in left]
        time.sleep(0.2)
