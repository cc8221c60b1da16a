"""Studies on Ray: actors, guardians, raylets, drivers and heads killed at seeded instants.

`CARD_KILLS` says how many (default 5), a fifth of each kind. After each kill the study goes on.
"""

from __future__ import annotations

import os
import random
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.chaos.cards_night import CardsNight, require_nothing_lost
from helpers.chaos.ray_killer import RayKiller
from helpers.ray_cluster import ray_cluster

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'ray>=2.60'"),
]

EACH = max(1, int(os.environ.get("CARD_KILLS", "5")) // 5)
COMMON = (
    "run --emulate H100-SXM --model Qwen/Qwen3-8B --workload smoke --space power "
    "--slo p99_tpot_ms<=100 --sampler random --no-confirm --no-checks"
)


def test_eight_workers_and_kills_of_all_but_guardians(tmp_path: Path) -> None:
    """On the virtual clock: it takes no guardian."""
    victims = [*("actor", "driver", "raylet", "head") * EACH]
    draw, trials = random.Random(EACH), 4 * len(victims) + 16
    draw.shuffle(victims)
    with ray_cluster(gpus=0) as cluster:
        words = f"{COMMON} --concurrency 8 --window-s 20 --cards 8 --trials {trials}"
        night = CardsNight(tmp_path, f"{words} --ray {cluster.address}", cluster.environment)
        killer = RayKiller(cluster, night, draw, gpus=8)
        for victim in victims:
            killer.kill_after(1 + draw.randrange(4), victim)
        killer.finish()
    require_nothing_lost(night, trials)


def test_two_workers_and_kills_of_their_guardians(tmp_path: Path) -> None:
    """With served emulators."""
    draw, trials = random.Random(EACH), 2 * EACH + 4
    with ray_cluster(gpus=0) as cluster:
        words = f"{COMMON} --live --concurrency 4 --window-s 1.5 --cards 2 --trials {trials}"
        night = CardsNight(tmp_path, f"{words} --ray {cluster.address}", cluster.environment)
        killer = RayKiller(cluster, night, draw, gpus=2)
        for _ in range(EACH):
            killer.kill_after(2, "guardian")
        killer.finish()
    require_nothing_lost(night, trials)
