"""A Ray cluster of this host, with a token, whose GPUs are only declared."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from helpers.alive import processes_with
from helpers.network import Network
from helpers.studies import let_come_first
from helpers.subprocesses import environment_with_helpers

ACTOR = "ray::RayBench"
_RAY = str(Path(sys.executable).with_name("ray"))


_GPUS = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
print(ray.cluster_resources().get("GPU", 0))
"""


class RayCluster:
    """Its address, the environment of those who may use it, and its nodes, all on this host."""

    def __init__(self, folder: str) -> None:
        port = 20_000 + os.getpid() % 20_000
        self.address = f"127.0.0.1:{port}"
        self.environment = {
            **environment_with_helpers(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray waits a minute for a head that is gone
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
            "TUNER_STATE_DIR": f"{folder}/state",
        }
        self._folder = folder
        self._port = port
        self.head: subprocess.Popen[bytes] | None = None
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start_head(self, gpus: int) -> None:
        """Start a head, whose node has so many GPUs."""
        self.head = self._started(
            "head",
            f"--head --include-dashboard=false --num-cpus=4 --object-store-memory=100000000 "
            f"--num-gpus={gpus} --port={self._port}",
        )
        deadline_s = time.monotonic() + 90.0
        while True:
            assert self.head.poll() is None and time.monotonic() < deadline_s, "no head"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.2)

    def add_node(self, gpus: int) -> None:
        """Start one more raylet on this host; it joins after a while."""
        words = f"--address={self.address} --num-gpus={gpus} --num-cpus=4"
        self.nodes.append(self._started(f"node-{len(self.nodes)}", words))

    def add_node_in(self, network: Network, gpus: int, state_folder: str) -> None:
        """Start a raylet in a network of its own, with a state folder of its own."""
        head = self.address.replace("127.0.0.1", _own_address())
        words = f"--address={head} --node-ip-address={network.address} --num-gpus={gpus}"
        inside = (*network.inside, "env", f"TUNER_STATE_DIR={state_folder}")
        name = f"node-{len(self.nodes)}"
        self.nodes.append(self._started(name, f"{words} --num-cpus=4", inside))

    def ended_nodes(self) -> list[subprocess.Popen[bytes]]:
        """Forget the nodes that have ended, and return them."""
        ended = [node for node in self.nodes if node.poll() is not None]
        self.nodes = [node for node in self.nodes if node not in ended]
        return ended

    def gpus(self) -> int:
        """Return how many GPUs the living nodes have, asked for by a process of its own."""
        asked = subprocess.run(
            [sys.executable, "-c", _GPUS, self.address],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(float(asked.stdout.split()[-1]))

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Return the processes of Ray whose name has a word; drivers are none of them."""
        return processes_with(
            "RAY_TMPDIR", self._folder, lambda words: "tuner" not in words and word in words[0]
        )

    def let_clients_come_first(self) -> None:
        """Let the clients, which are threads of the actors, run before the servers on their cores.

        Actors that start later have to be told again.
        """
        for actor in self.processes(ACTOR):
            with suppress(psutil.Error, ProcessLookupError):
                for thread in actor.threads():
                    let_come_first(thread.id)

    def kill_all(self) -> None:
        """Kill every process of Ray."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        for started in filter(None, [self.head, *self.nodes]):
            started.wait()
        self.head, self.nodes = None, []

    def stop(self) -> None:
        """Stop it in order."""
        for started in filter(None, [*self.nodes, self.head]):
            started.terminate()  # with --block it stops all that it started
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()

    def _started(
        self, name: str, words: str, inside: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        with Path(self._folder, f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*inside, _RAY, "start", "--block", "--disable-usage-stats", *words.split()],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def _own_address() -> str:
    """Return the address of this host that Ray takes for a node's."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


@contextmanager
def ray_cluster(gpus: int) -> Iterator[RayCluster]:
    """Start a head; at the end every process of the cluster is stopped."""
    folder = tempfile.mkdtemp(prefix="ry", dir="/tmp")  # a socket's path has to be short
    cluster = RayCluster(folder)
    try:
        cluster.start_head(gpus)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
