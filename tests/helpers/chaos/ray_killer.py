"""Kills parts of a Ray cluster, and drivers of a study on it, and goes on with the study."""

from __future__ import annotations

import random
import subprocess
import time

import psutil

from helpers.alive import runs_processes
from helpers.chaos.cards_night import CardsNight
from helpers.ray_cluster import ACTOR, RayCluster

GUARDIAN = "guardian_process"
_NODES = 2


class RayKiller:
    """One study on a cluster of two nodes, which have the GPUs between them."""

    def __init__(
        self, cluster: RayCluster, night: CardsNight, draw: random.Random, gpus: int
    ) -> None:
        self._cluster = cluster
        self._night = night
        self._draw = draw
        self._gpus = gpus
        self._add_nodes()
        self.run = night.start()

    def kill_after(self, results: int, victim: str) -> None:
        """Kill something once so many more results are in the log."""
        self._wait_for(results)
        self._night.say(f"--- killing: {victim}")
        if victim == "driver":
            self.run.kill()
            self._resume()
        elif victim == "head":
            (gcs,) = self._cluster.processes("gcs_server")
            gcs.kill()
            code = self.run.wait(180)
            assert code == 5, f"{code}: {self._night.log.read_text()}"
            self._cluster.kill_all()
            self._cluster.start_head(gpus=0)
            self._add_nodes()
            self._resume()
        elif victim == "guardian":
            self._draw.choice(self.on_nodes(GUARDIAN)).kill()
            self._resume()  # the run ends: nobody would clean up behind it
        elif victim == "actor":
            self._draw.choice(self._cluster.processes(ACTOR)).kill()
        else:
            node, raylet = self._draw.choice(self._raylets())
            raylet.kill()
            node.wait(60)
            self._cluster.ended_nodes()
            self._cluster.add_node(self._gpus // _NODES)

    def finish(self) -> None:
        """Wait for the end of the study, and of all that it started."""
        self.run.wait(900)
        self._night.finish()
        end_s = time.monotonic() + 60.0
        while self._cluster.processes(ACTOR) or self.on_nodes(GUARDIAN, "tuner.emulator"):
            assert time.monotonic() < end_s
            time.sleep(0.2)

    def on_nodes(self, *words: str) -> list[psutil.Process]:
        """Return the processes of benches whose command line has one of the words."""
        return runs_processes(self._cluster.environment["TUNER_STATE_DIR"], *words)

    def _raylets(self) -> list[tuple[subprocess.Popen[bytes], psutil.Process]]:
        """Return the nodes that have a raylet already, with it; there is one before long."""
        end_s = time.monotonic() + 120.0
        while True:
            found = [
                (node, child)
                for node in self._cluster.nodes
                if node.poll() is None
                for child in psutil.Process(node.pid).children()
                if "raylet/raylet" in " ".join(child.cmdline()[:1])
            ]
            if found:
                return found
            assert time.monotonic() < end_s
            time.sleep(0.5)

    def _wait_for(self, results: int) -> None:
        wanted, end_s = self._night.logged() + results, time.monotonic() + 400.0
        while self._night.logged() < wanted:
            assert self.run.poll() is None, self._night.log.read_text()
            assert time.monotonic() < end_s, self._night.log.read_text()
            time.sleep(0.05)

    def _resume(self) -> None:
        """Go on once the driver has ended."""
        self._night.say(f"--- the driver ended with code {self.run.wait(180)}")
        self.run = self._night.start("resume s --yes" if self._night.is_stored() else None)

    def _add_nodes(self) -> None:
        """Add the nodes, and wait until the cluster has their GPUs."""
        for _ in range(_NODES):
            self._cluster.add_node(self._gpus // _NODES)
        end_s = time.monotonic() + 300.0
        while self._cluster.gpus() < self._gpus:
            assert time.monotonic() < end_s
            for _ in self._cluster.ended_nodes():  # a busy host takes too long for Ray
                self._cluster.add_node(self._gpus // _NODES)
            time.sleep(1.0)
