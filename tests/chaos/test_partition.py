"""A node of a Ray cluster that the network cuts off: nothing is lost or left, and it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.alive import runs_processes
from helpers.chaos.cards_night import CardsNight, looking_every, require_nothing_lost
from helpers.network import Network, can_be_made
from helpers.ray_cluster import RayCluster, ray_cluster

from tuner.store import Store

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'ray>=2.60'"),
    pytest.mark.skipif(not can_be_made(), reason="needs root and network namespaces"),
]

TRIALS = 80
BENCH = ("ray::RayBench", "guardian_process", "tuner.emulator")
OFTEN = looking_every(5.0)


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.remove()


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(gpus=1) as made:
        yield made


def test_a_node_is_cut_off_and_comes_back(
    network: Network, cluster: RayCluster, tmp_path: Path
) -> None:
    there = str(tmp_path / "there")
    cluster.add_node_in(network, 1, there)
    wait_for(lambda: cluster.gpus() == 2, 120.0)
    words = (
        "run --emulate H100-SXM --model Qwen/Qwen3-8B --workload smoke --space power "
        "--slo p99_tpot_ms<=100 --sampler random --no-confirm --no-checks --live --concurrency 4 "
        f"--window-s 1.5 --cards 2 --trials {TRIALS} --ray {cluster.address}"
    )
    night = CardsNight(tmp_path, words, cluster.environment, start=OFTEN)
    run = night.start()
    wait_for(lambda: night.logged() >= 6 or run.poll() is not None, 300.0)
    assert on_node(there), night.log.read_text()
    network.pull_out()
    cut_off = night.logged()
    # the other node goes on, and this one's guardian cleans up without the driver
    wait_for(lambda: night.logged() >= cut_off + 6 or run.poll() is not None, 200.0)
    assert run.poll() is None, night.log.read_text()
    wait_for(lambda: not on_node(there), 200.0)
    wait_for(lambda: "was lost" in night.log.read_text(), 200.0)
    assert run.poll() is None, night.log.read_text()
    network.plug_in()
    cluster.add_node_in(network, 1, there)
    plugged_in = datetime.now(UTC)
    assert night.code_of(run, 600) == 0, night.log.read_text()
    require_nothing_lost(night, TRIALS)
    with Store.open(night.store, create=False) as store:
        trials = store.trials("s")
    again = {t.owner.card for t in trials if t.started_at > plugged_in and t.measurement}
    assert again == {"H100-SXM:0", "H100-SXM:1"}, night.log.read_text()
    assert not on_node(there)


def on_node(state_folder: str) -> list[int]:
    """Return the processes of benches on the node with this state folder."""
    return [p.pid for p in runs_processes(state_folder, *BENCH)]


def wait_for(is_so: Callable[[], bool], within_s: float) -> None:
    end_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.1)
