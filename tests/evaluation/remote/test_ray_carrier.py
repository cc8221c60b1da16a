"""Benches on a Ray cluster: the same results, what is refused, and what outlives whom."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from queue import Queue
from typing import Any

import psutil
import pytest
from helpers.alive import ends
from helpers.benches import CAPPED, check_same_as_here, metrics, virtual_order
from helpers.ray_cluster import RayCluster, ray_cluster
from helpers.scripted import Recorder

from tuner.errors import PreflightError
from tuner.evaluation.evaluator import BenchLostError
from tuner.evaluation.remote import ray_carrier
from tuner.evaluation.remote.ray_carrier import RayCarrier
from tuner.evaluation.remote.ray_cluster import connect, imported_ray, room_for
from tuner.evaluation.remote.ray_head import RayHead
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'ray>=2.60'"),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    patch = pytest.MonkeyPatch()
    with ray_cluster(gpus=2) as made:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        patch.setenv("RAY_ADDRESS", made.address)
        connect(made.address)  # Ray reads the token when it is imported
        yield made
        import ray

        ray.shutdown()
        patch.undo()


def carrier_of(folder: Path, name: str) -> RayCarrier:
    order, head = virtual_order(folder), RayHead(os.environ["RAY_ADDRESS"], 60.0)
    return RayCarrier(order, Recorder(), "s", name, head, gpus=1)


@pytest.fixture
async def carrier(cluster: RayCluster, tmp_path: Path) -> AsyncIterator[RayCarrier]:
    made = carrier_of(tmp_path, "H100-SXM:3")
    yield made
    await made.close()


async def test_it_returns_what_the_same_evaluator_returns_here(carrier: RayCarrier) -> None:
    await check_same_as_here(RemoteEvaluator(carrier))


async def test_a_killed_actor_is_told_and_opens_again(
    carrier: RayCarrier, capfd: pytest.CaptureFixture[str]
) -> None:
    remote = RemoteEvaluator(carrier)
    await remote.prepare()
    assert carrier.facts is not None
    os.kill(carrier.facts.pid, signal.SIGKILL)
    with pytest.raises(BenchLostError):
        for trial in range(1000):
            await remote.evaluate(CAPPED, trial)
    assert metrics(await remote.evaluate(CAPPED, 3))
    await asyncio.sleep(1.0)  # Ray would print its own message here
    assert capfd.readouterr().out == ""


async def test_an_actor_that_comes_too_late_is_ended(
    carrier: RayCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed, may_go_on, late = RayCarrier._placed, threading.Event(), Queue[Any]()

    def slowly(self: RayCarrier) -> Any:
        may_go_on.wait()
        late.put(placed(self))
        return late.queue[0]

    monkeypatch.setattr(RayCarrier, "_placed", slowly)
    monkeypatch.setattr(ray_carrier, "_OPEN_S", 0.5)
    with pytest.raises(BenchLostError, match="did not place an actor within"):
        await carrier.call("prepare")
    may_go_on.set()
    actor = await asyncio.to_thread(late.get)
    with pytest.raises(imported_ray().exceptions.RayActorError):
        while True:
            await actor.news.remote()


async def test_its_client_and_servers_are_no_background_work(carrier: RayCarrier) -> None:
    await carrier.call("prepare")
    assert carrier.facts is not None
    assert psutil.Process(carrier.facts.pid).nice() <= psutil.Process().nice()


async def test_a_fault_of_a_node_is_told(cluster: RayCluster) -> None:
    """As a full disk, where the bench keeps its logs."""
    made = carrier_of(Path("/dev/null"), "full")
    with pytest.raises(BenchLostError, match=r"NotADirectoryError .*/dev/null"):
        await made.call("prepare")
    await made.close()


DRIVER = """
import asyncio, pathlib, sys
from helpers.benches import virtual_order
from helpers.scripted import Recorder
from tuner.configuration import Configuration
from tuner.evaluation.remote.ray_carrier import RayCarrier
from tuner.evaluation.remote.ray_cluster import connect

async def main():
    order, head = virtual_order(pathlib.Path(sys.argv[2])), connect(sys.argv[1])
    carrier = RayCarrier(order, Recorder(), "s", "left", head, gpus=1)
    await carrier.call("evaluate", Configuration(), 7)
    print(carrier.facts.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_result_outlives_its_driver(cluster: RayCluster, tmp_path: Path) -> None:
    words = [sys.executable, "-c", DRIVER, cluster.address, str(tmp_path)]
    driver = subprocess.Popen(words, stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert driver.stdout is not None
    bench = int(driver.stdout.readline())
    driver.kill()
    driver.communicate()
    carrier = carrier_of(tmp_path, "left")
    found = await carrier.left_over()
    assert found is not None and (found.method, found.number) == ("evaluate", 7)
    assert metrics(found.evaluation)
    await carrier.close()
    assert ends(bench, within_s=30.0)


def test_a_cluster_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(PreflightError, match="RAY_AUTH_MODE=token"):
        connect("127.0.0.1:1")


def test_a_server_over_several_nodes_is_refused(cluster: RayCluster) -> None:
    assert room_for(1) == 2 and room_for(2) == 1
    with pytest.raises(PreflightError, match="several nodes is not built"):
        room_for(3)
