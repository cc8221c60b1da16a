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
from contextlib import contextmanager
from pathlib import Path

from helpers.subprocesses import environment_with_helpers

_RAY = str(Path(sys.executable).with_name("ray"))


class RayCluster:
    """Its address, and the environment of those who may use it."""

    def __init__(self, address: str, environment: dict[str, str]) -> None:
        self.address = address
        self.environment = environment

    def add_node(self, gpus: int) -> None:
        """Start one more raylet on this host."""
        self._ray("start", f"--address={self.address}", f"--num-gpus={gpus}", "--num-cpus=4")

    def _ray(self, *words: str) -> None:
        subprocess.run(
            [_RAY, *words],
            env=self.environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


def _wait_for(port: int, head: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 90.0
    while True:
        assert head.poll() is None and time.monotonic() < deadline_s, "the head does not start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)


@contextmanager
def ray_cluster(gpus: int) -> Iterator[RayCluster]:
    """Start a head; at the end every process of the cluster is stopped, by its session."""
    folder = tempfile.mkdtemp(prefix="ry", dir="/tmp")  # a socket's path has to be short
    environment = {
        **environment_with_helpers(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "TUNER_STATE_DIR": f"{folder}/state",
    }
    port = 20_000 + os.getpid() % 20_000
    words = (
        "start --head --block --include-dashboard=false --num-cpus=4 --disable-usage-stats "
        f"--object-store-memory=100000000 --num-gpus={gpus} --port={port}"
    )
    log = Path(folder, "head.log").open("wb")  # noqa: SIM115
    head = subprocess.Popen(
        [_RAY, *words.split()], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    try:
        _wait_for(port, head)
        yield RayCluster(f"127.0.0.1:{port}", environment)
    finally:
        head.terminate()  # with --block it stops all that it started
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
