"""Workers, their guardians and the driver of a study on several cards, killed at seeded instants.

`CARD_KILLS` says how many (default 6). After each kill the study is resumed until it is finished.
The workers on this host have served emulators, those on Ray evaluate on the virtual clock.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from helpers.chaos.cards_night import CardsNight, processes_with, require_nothing_lost
from helpers.ray_cluster import RayCluster, ray_cluster

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("CARD_KILLS", "6"))
BENCH, GUARDIAN, ACTOR = "evaluation.remote.bench_process", "guardian_process", "ray::RayBench"
SERVED = (
    "run --emulate H100-SXM --live --cards 2 --model Qwen/Qwen3-8B --workload smoke "
    "--concurrency 4 --space power --slo p99_tpot_ms<=100 --window-s 1.5 --sampler random "
    "--trials 6 --no-confirm --no-checks"
)
VIRTUAL = (
    "run --emulate H100-SXM --cards 4 --model Qwen/Qwen3-8B --workload smoke --concurrency 8 "
    "--space power --slo p99_tpot_ms<=100 --window-s 20 --sampler random --trials 24 --no-confirm "
    "--no-checks --ray "
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
    run.wait(600)
    night.finish()
    require_gone(night)
    require_nothing_lost(night, 6)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'ray>=2.60'")
    with ray_cluster(gpus=4) as made:
        yield made


@pytest.mark.ray
@pytest.mark.parametrize("seed", range(KILLS))
def test_a_kill_on_ray_costs_what_it_interrupts(
    cluster: RayCluster, tmp_path: Path, seed: int
) -> None:
    night = CardsNight(tmp_path, VIRTUAL + cluster.address, cluster.environment)
    draw, run = random.Random(seed), night.start()
    deadline_s = time.monotonic() + 300.0
    while night.logged() < 4 + draw.randrange(8):
        assert run.poll() is None and time.monotonic() < deadline_s, night.log.read_text()
        time.sleep(0.05)
    if seed % 2 == 0:
        run.kill()
    else:
        draw.choice(actors(cluster)).kill()
    run.wait(600)
    night.finish()
    require_nothing_lost(night, 24)
    end_s = time.monotonic() + 60.0
    while actors(cluster):
        assert time.monotonic() < end_s
        time.sleep(0.2)


def actors(cluster: RayCluster) -> list[psutil.Process]:
    folder = cluster.environment["RAY_TMPDIR"]
    return [p for p in processes_with("RAY_TMPDIR", folder) if ACTOR in " ".join(p.cmdline())]


def require_gone(night: CardsNight) -> None:
    end_s = time.monotonic() + 60.0
    while left := night.processes():
        assert time.monotonic() < end_s, [p.cmdline() for p in left]
        time.sleep(0.2)
