"""Idle seconds between two configurations on a real vLLM: launched as usual, and forked.

    TUNER_VLLM=/path/to/vllm python benchmarks/bench_launch.py

Configurations of a tiny model on a CPU, one server at a time. In each round every configuration is
launched both ways in turn, which comes first alternates, and a window is measured on each server.
Idle is what passes from the end of a window to the moment the next server is ready: its own stop
and launch. CPU seconds are those of the server's processes at that moment, which a busy machine
changes less. The windows show that a forked server is as fast as any other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from tuner.catalog.gpu import load_gpu
from tuner.configuration import Configuration
from tuner.devices.emulated.meters import BusyMeter
from tuner.evaluation.launched.warm_server import (
    LaunchSettings,
    ServerSpec,
    WarmServer,
    WarmServers,
)
from tuner.load.workload import load_workload
from tuner.measurement.load_run import run_load
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, Load, Source
from tuner.servers.processes import stop_tagged, tagged_processes
from tuner.servers.vllm.command import find_vllm
from tuner.servers.vllm.server import VllmServer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.studies import TINY_LLAMA, let_come_first

WAYS = ("ordinary", "forked")
SEQS = (4, 8, 16)
WINDOW_METRICS = ("output_throughput_tok_s", "p50_tpot_ms")
CPU_METRIC = "cpu_ms_per_token"
METRICS = (*WINDOW_METRICS, CPU_METRIC)
FLAGS = {
    "load_format": "dummy",
    "skip_tokenizer_init": True,
    "dtype": "float32",
    "max_model_len": 256,
}
# the client has a core of its own
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": 1, "VLLM_CPU_OMP_THREADS_BIND": 0}
CLIENTS = 24


@dataclass(frozen=True)
class Launch:
    """One launch and its window; metrics are empty where the window was thrown away."""

    way: str
    max_num_seqs: int
    launch_s: float
    stop_s: float
    cpu_s: float
    metrics: dict[str, float]

    @property
    def idle_s(self) -> float:
        """Seconds without a window."""
        return self.launch_s + self.stop_s


def configuration(max_num_seqs: int, eager: bool) -> Configuration:
    """Return a configuration that needs a launch of its own."""
    flags = {**FLAGS, "enforce_eager": eager, "max_num_seqs": max_num_seqs}
    return Configuration(flags=flags, environment=ENVIRONMENT)


class Bench:
    """Launches one server after the other, and measures a window on each."""

    def __init__(self, folder: Path, window_s: float, eager: bool) -> None:
        model = folder / "tiny"
        model.mkdir()
        (model / "config.json").write_text(TINY_LLAMA)
        variables = {"HF_HUB_OFFLINE": True, "VLLM_SERVER_DEV_MODE": True}
        server = VllmServer(find_vllm(os.environ["TUNER_VLLM"]), "", variables=variables)
        gpu = load_gpu("H100-SXM")
        spec = ServerSpec(server, Source.MEASURED, lambda _: BusyMeter(gpu), Configuration(), {})
        self.run_tag = f"bench-launch-{os.getpid()}"
        settings = LaunchSettings(self.run_tag, folder / "logs", 1800.0, None, fork_servers=True)
        self.servers = WarmServers(str(model), spec, settings)
        self._window_s = window_s
        self._eager = eager
        self._workload = load_workload("smoke")

    async def launch(self, way: str, max_num_seqs: int, name: str) -> Launch:
        """Launch, measure a window, stop."""
        whole = configuration(max_num_seqs, self._eager)
        before_s = self._cpu_s()  # of the fork servers
        began_s = time.monotonic()
        get = self.servers.get if way == "forked" else self.servers.get_clean
        warm = await get(whole, name)
        launch_s = time.monotonic() - began_s
        ready_s = self._cpu_s()
        cpu_s = sum(used_s - before_s.get(pid, 0.0) for pid, used_s in ready_s.items())
        metrics = await self._window(warm)
        metrics |= await self._cost(warm, ready_s)
        began_s = time.monotonic()
        await self.servers.close()
        return Launch(way, max_num_seqs, launch_s, time.monotonic() - began_s, cpu_s, metrics)

    async def _window(self, warm: WarmServer) -> dict[str, float]:
        plan = WindowPlan(window_s=self._window_s, warmup_limit_s=3 * self._window_s)
        raw, _ = await run_load(
            warm.server,
            self._workload.requests(),
            Load(concurrency=CLIENTS),
            warm.meter,
            plan,
            latency_source=Source.MEASURED,
        )
        found = reduce_run(raw, {})
        if isinstance(found, Failure):
            print(f"  window thrown away: {found.reason}", file=sys.stderr)
            return {}
        return {name: found.metrics[name] for name in WINDOW_METRICS}

    async def _cost(self, warm: WarmServer, ready_s: dict[int, float]) -> dict[str, float]:
        """Return the CPU time of the server's processes for each token that it has made."""
        used_s = sum(now_s - ready_s.get(pid, 0.0) for pid, now_s in self._cpu_s().items())
        async with aiohttp.ClientSession() as session:
            sample = await warm.server.api.sample(session, warm.server.base_url)
        assert sample.generation_tokens
        return {CPU_METRIC: 1e3 * used_s / sample.generation_tokens}

    def _cpu_s(self) -> dict[int, float]:
        found = {}
        for process in tagged_processes(self.run_tag):
            with suppress(psutil.NoSuchProcess):
                times = psutil.Process(process.pid).cpu_times()
                found[process.pid] = times.user + times.system
        return found


async def launches(bench: Bench, rounds: int) -> list[Launch]:
    """Launch every configuration both ways in each round; the first fork imports, and is told."""
    found = []
    try:
        first = await bench.launch("forked", SEQS[0], "first")
        print(f"the first forked launch, which imports: {row(first)}", flush=True)
        for number in range(rounds * len(SEQS)):
            ways = WAYS if number % 2 == 0 else WAYS[::-1]
            for way in ways:
                seqs = SEQS[number % len(SEQS)]
                launch = await bench.launch(way, seqs, f"{way}-{number}")
                print(f"  {way:8} {seqs:3}: {row(launch)}", flush=True)
                found.append(launch)
    finally:
        await bench.servers.end()
        stop_tagged(bench.run_tag, grace_s=0)
    return found


def row(launch: Launch) -> str:
    """Return one launch as words."""
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in launch.metrics.items())
    return (
        f"launch {launch.launch_s:.1f} s, stop {launch.stop_s:.1f} s, CPU {launch.cpu_s:.1f} s; "
        f"{metrics}; load average {os.getloadavg()[0]:.1f}"
    )


def table(found: Iterable[Launch]) -> Iterator[str]:
    """Yield the medians of both ways with the lowest and highest, and their ratio."""
    of = {way: [launch for launch in found if launch.way == way] for way in WAYS}
    figures = {
        "idle, s": {way: [one.idle_s for one in of[way]] for way in WAYS},
        "launch, s": {way: [one.launch_s for one in of[way]] for way in WAYS},
        "stop, s": {way: [one.stop_s for one in of[way]] for way in WAYS},
        "CPU until ready, s": {way: [one.cpu_s for one in of[way]] for way in WAYS},
    }
    yield f"{'':<34} {'ordinary':>28} {'forked':>28}  ordinary / forked"
    for name, values in figures.items():
        yield line(name, values["ordinary"], values["forked"])
    for metric in METRICS:
        for seqs in SEQS:
            values = {
                way: [
                    one.metrics[metric]
                    for one in of[way]
                    if one.max_num_seqs == seqs and metric in one.metrics
                ]
                for way in WAYS
            }
            if all(values.values()):
                yield line(f"{metric}, {seqs} seqs", values["ordinary"], values["forked"])


def line(name: str, ordinary: list[float], forked: list[float]) -> str:
    """Return one row of the table."""
    ratio = statistics.median(ordinary) / statistics.median(forked)
    return f"{name:<34} {spread(ordinary):>28} {spread(forked):>28}  {ratio:.2f}"


def spread(values: list[float]) -> str:
    """Return median, lowest, highest and count."""
    middle = statistics.median(values)
    return f"{middle:.3g} ({min(values):.3g}-{max(values):.3g}, n={len(values)})"


if __name__ == "__main__":
    if "TUNER_VLLM" not in os.environ:
        sys.exit("TUNER_VLLM has to name a vllm executable")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="of three configurations, both ways")
    parser.add_argument("--window-s", type=float, default=6.0)
    parser.add_argument("--eager", action="store_true", help="without compilation")
    given = parser.parse_args()
    if not let_come_first(os.getpid()):
        print("without the right to a real-time priority some windows may be thrown away")
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as folder:
        bench = Bench(Path(folder), given.window_s, given.eager)
        for text in table(asyncio.run(launches(bench, given.rounds))):
            print(text)
