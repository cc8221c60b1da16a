"""`kill -9` of every process of a night, and restarts of its database: 0 lost, left, doubled.

`make chaos CHAOS_KILLS=300` asks for more of them. Each lane has nights, one after another; every
second one is on PostgreSQL.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from helpers.chaos.roles import roles_night
from helpers.postgres_server import BINARIES, postgres_server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(7200)]
LANES = 3
KILLS = -(-int(os.environ.get("CHAOS_KILLS", "60")) // LANES)
TRIALS = 24  # every point of the space


@pytest.mark.parametrize("lane", range(LANES))
def test_nights_end_complete_whatever_is_killed(
    tmp_path: Path, lane: int, record_property: Any
) -> None:
    killed: Counter[str] = Counter()
    nights = 0
    while killed.total() < KILLS:
        seed = 1000 * lane + nights
        folder = tmp_path / str(seed)
        folder.mkdir(mode=0o700)
        is_on_postgres = bool(BINARIES) and seed % 2 == 0
        with (
            postgres_server() if is_on_postgres else nullcontext("") as url,
            roles_night(folder, seed, TRIALS, url) as night,
        ):
            night.kill_until_done(KILLS - killed.total())
        store = "PostgreSQL" if is_on_postgres else "SQLite"
        for (role, _), count in night.kills.items():
            killed[f"{role}, {store}"] += count
        nights += 1
    record_property("killed", json.dumps(killed))
