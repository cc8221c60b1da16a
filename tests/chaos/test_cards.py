"""Workers, their guardians and the driver of a study on several cards, killed at seeded instants.

`CARD_KILLS` says how many (default 6). After each kill the study is resumed until it is finished.
The workers on this host have served emulators, a night each. Those on Ray evaluate on the virtual
clock, all kills in one night.
"""

from __future__ import annotations

import os
import random
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from helpers.chaos.cards_night import CardsNight, require_nothing_lost
from helpers.ray_cluster import RayCluster, ray_cluster

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("CARD_KILLS", "6"))
BENCH, GUARDIAN, ACTOR = "evaluation.remote.bench_process", "guardian_process", "ray::RayBench"
SERVED = (
    "run --emulate H100-SXM --live --cards 2 --model Qwen/Qwen3-8B --workload smoke "
    "--concurrency 4 --space power --slo p99_tpot_ms<=100 --window-s 1.5 --sampler random "
    "--trials 6 --no-confirm --no-checks"
)
WORKERS = 8
VIRTUAL = (
    "run --emulate H100-SXM --model Qwen/Qwen3-8B --workload smoke --concurrency 8 --space power "
    "--slo p99_tpot_ms<=100 --window-s 20 --sampler random --no-confirm --no-checks "
    f"--cards {WORKERS} "
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


@pytest.mark.ray
def test_a_night_on_ray_of_kills(tmp_path: Path) -> None:
    """Eight workers on two nodes; the guardian's kill is above, virtual servers need none."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'ray>=2.60'")
    draw = random.Random(KILLS)
    trials = 4 * KILLS + 2 * WORKERS
    with ray_cluster(gpus=0) as cluster:
        add_nodes(cluster)
        words = f"{VIRTUAL} --trials {trials} --ray {cluster.address}"
        night = CardsNight(tmp_path, words, cluster.environment)
        killer = RayKiller(cluster, night, draw)
        for number in range(KILLS):
            killer.wait_for_results(1 + draw.randrange(4))
            killer.kill(("actor", "driver", "raylet", "head")[number % 4])
        assert killer.run.wait(900) == 0, night.log.read_text()
        require_nothing_lost(night, trials)
        end_s = time.monotonic() + 60.0
        while cluster.processes(ACTOR):
            assert time.monotonic() < end_s
            time.sleep(0.2)


class RayKiller:
    """Kills parts of a cluster and drivers, and goes on with the study."""

    def __init__(self, cluster: RayCluster, night: CardsNight, draw: random.Random) -> None:
        self.cluster = cluster
        self.night = night
        self.draw = draw
        self.run = night.start()

    def wait_for_results(self, count: int) -> None:
        """Wait until so many more results are in the log."""
        wanted, end_s = self.night.logged() + count, time.monotonic() + 300.0
        while self.night.logged() < wanted:
            assert self.run.poll() is None, self.night.log.read_text()
            assert time.monotonic() < end_s, self.night.log.read_text()
            time.sleep(0.05)

    def kill(self, victim: str) -> None:
        self.night.say(f"--- killing: {victim}")
        if victim == "driver":
            self.run.kill()
            self._resume()
        elif victim == "head":
            (gcs,) = self.cluster.processes("gcs_server")
            gcs.kill()
            self._resume()
        elif victim == "actor":
            if actors := self.cluster.processes(ACTOR):
                self.draw.choice(actors).kill()
        else:
            node = self.draw.choice(self.cluster.nodes)
            children = psutil.Process(node.pid).children()
            next(p for p in children if "raylet/raylet" in p.cmdline()[0]).kill()
            node.wait(60)
            self.cluster.nodes.remove(node)
            self.cluster.add_node(WORKERS // 2)

    def _resume(self) -> None:
        """Once the driver has ended, which a lost head ends too."""
        self.night.say(f"--- the driver ended with code {self.run.wait(180)}")
        if self.cluster.head is None or self.cluster.head.poll() is not None:
            self.cluster.kill_all()
            self.cluster.start_head(gpus=0)
            add_nodes(self.cluster)
        words = "resume s --yes" if self.night.is_stored() else None
        self.run = self.night.start(words)


def add_nodes(cluster: RayCluster) -> None:
    """Add two nodes, and wait until the cluster has their GPUs."""
    for _ in range(2):
        cluster.add_node(WORKERS // 2)
    end_s = time.monotonic() + 300.0
    while cluster.gpus() < WORKERS:
        assert time.monotonic() < end_s
        for _ in cluster.ended_nodes():  # a busy host takes too long for Ray
            cluster.add_node(WORKERS // 2)
        time.sleep(1.0)


def require_gone(night: CardsNight) -> None:
    end_s = time.monotonic() + 60.0
    while left := night.processes():
        assert time.monotonic() < end_s, [p.cmdline() for p in left]
        time.sleep(0.2)
