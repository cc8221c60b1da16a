"""What a virtual night costs, beside another checkout of this project: seconds, memory, results.

    PYTHONPATH=. python benchmarks/bench_engine.py [--against PATH] [--windows N]

`PATH` is the root of another checkout, such as an older one made with `git worktree add`; its
classes are found by their names, wherever they are. Each case runs in a process of its own, turn
about, and the figures are of one core's processor time and of the process's peak memory. Results
are compared digit for digit: a digest of every token's time and of the timelines, and each metric
and interval that both checkouts know.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
LLAMA, MIXTURE, GPU = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B", "H100-SXM"
PRECISION = {"percentiles": ("p99_tpot_ms", "p99_ttft_ms")}
# Splits of eight GPUs, as a search over them proposes: copies, tensor parallelism, other flags.
SPLITS = ((8, 1), (1, 8), (2, 4), (4, 2), (1, 4), (4, 1))


@dataclass(frozen=True, slots=True)
class Case:
    """Windows that are simulated, reduced, given intervals and encoded, as in a study."""

    title: str
    model: str
    request_rate: float | None  # None: the workload's own load
    max_window_s: float
    configurations: tuple[tuple[dict[str, Any], dict[str, Any]], ...]  # flags, device


def _demo() -> Case:
    points = [
        ({"max_num_seqs": seqs, "max_num_batched_tokens": tokens}, device)
        for seqs, tokens, device in (
            (1024, 8192, {}),
            (128, 2048, {"power_limit_w": 300}),
            (128, 16384, {"power_limit_w": 325, "sm_clock_mhz": 1140}),
            (64, 4096, {"power_limit_w": 400, "sm_clock_mhz": 780}),
            (256, 1024, {"power_limit_w": 350}),
            (32, 8192, {"power_limit_w": 700, "sm_clock_mhz": 1380}),
        )
    ]
    return Case("the demo: 8B, 4 requests/s, 40 s windows", LLAMA, 4.0, 40.0, tuple(points))


def _mixture() -> Case:
    points = [
        (
            {"data_parallel_size": copies, "tensor_parallel_size": shards, "max_num_seqs": 1024},
            {"power_limit_w": limit_w},
        )
        for (copies, shards), limit_w in zip(SPLITS, (700, 700, 400, 500, 300, 600), strict=True)
    ]
    return Case("Qwen3-30B-A3B on 8 GPUs, chat", MIXTURE, None, 180.0, tuple(points))


def _dense() -> Case:
    points = [
        ({"max_num_seqs": seqs}, {"power_limit_w": limit_w})
        for seqs, limit_w in ((256, 700), (64, 400), (32, 300), (128, 500), (16, 250), (512, 600))
    ]
    return Case("8B, chat", LLAMA, None, 180.0, tuple(points))


CASES: dict[str, Callable[[], Case]] = {"demo": _demo, "mixture": _mixture, "dense": _dense}


def named(name: str) -> Any:
    """Return the class or function of that name, wherever it is in the checkout that runs."""
    pattern = re.compile(rf"^(?:class|def) {name}\b", re.MULTILINE)
    for path, text in _sources().items():
        if pattern.search(text):
            module = ".".join(path.relative_to(Path.cwd()).with_suffix("").parts)
            return getattr(importlib.import_module(module), name)
    raise LookupError(f"no {name} in {Path.cwd()}")


@cache
def _sources() -> dict[Path, str]:
    return {path: path.read_text() for path in sorted((Path.cwd() / "tuner").rglob("*.py"))}


def run_case(case: Case, windows: int) -> dict[str, Any]:
    """Run some windows of a case; returns seconds by part, memory and a digest."""
    model, gpu = named("load_model")(case.model), named("load_gpu")(GPU)
    workload = named("load_workload")("chat")
    rate = case.request_rate
    load = workload.default_load if rate is None else named("Load")(request_rate=rate)
    precision = named("Precision")(max_window_s=case.max_window_s, **PRECISION)
    plan = named("WindowPlan")(precision=precision)
    simulate, reduce_run = named("simulate"), named("reduce_run")
    intervals = named("intervals")
    encode = importlib.import_module("tuner.store.raw").encode
    limits_ms = {"tpot_ms": 25.0, "ttft_ms": 500.0}
    spent = {"engine": 0.0, "metrics": 0.0, "record": 0.0}
    digest, virtual_s = sha256(), 0.0
    values: dict[str, float] = {}
    for trial in range(windows):
        flags, device = case.configurations[trial % len(case.configurations)]
        configuration = named("Configuration")(
            flags={"max_model_len": 16384, **flags}, device=device
        )
        watch = named("SteadyWindow")(plan)
        requests = workload.requests()
        began_s = time.process_time()
        raw = simulate(model, gpu, configuration, requests, load, watch, seed=trial)
        simulated_s = time.process_time()
        measurement = reduce_run(raw, limits_ms)
        known = intervals(raw, limits_ms) if hasattr(measurement, "metrics") else {}
        reduced_s = time.process_time()
        encoded = encode(raw)
        spent["engine"] += simulated_s - began_s
        spent["metrics"] += reduced_s - simulated_s
        spent["record"] += time.process_time() - reduced_s
        virtual_s += raw.window_end_s
        digest.update(encoded)
        for name, value in getattr(measurement, "metrics", {}).items():
            values[f"window {trial}: {name}"] = value
        for name, found in known.items():
            values[f"window {trial}: low {name}"] = found.low
            values[f"window {trial}: high {name}"] = found.high
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "spent_s": spent,
        "virtual_s": virtual_s,
        "memory_mb": memory_mb,
        "digest": digest.hexdigest()[:16],
        "values": values,
    }


def run_requests() -> dict[str, Any]:
    """Run 1,000 requests of 1,024/256 tokens through the engine alone; least of some repeats."""
    import math

    import numpy as np

    sequence_of = named("Sequence")
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 30_000, 1_024, dtype=np.int32) for _ in range(1_000)]
    spent, digest = {}, sha256()
    for most in (64, 256):
        costs = []
        for _ in range(7):
            flags = {"max_num_seqs": most, "enable_prefix_caching": True}
            configuration = named("Configuration")(flags=flags)
            engine = named("engine_for")(
                named("load_model")(LLAMA), named("load_gpu")(GPU), configuration, seed=0
            )
            began_s = time.process_time()
            for number, prompt in enumerate(prompts):
                engine.submit(sequence_of(number, 1_024, 256, prompt))
            while engine.running or engine.waiting:
                engine.advance(math.inf)
            costs.append(time.process_time() - began_s)
        spent[f"max_num_seqs={most}"] = min(costs)
        digest.update(repr((engine.clock_s, engine.energy_j, engine.step_count)).encode())
    return {"spent_s": spent, "digest": digest.hexdigest()[:16], "values": {}}


def in_checkout(root: Path, case: str, windows: int) -> dict[str, Any]:
    """Run a case with the code of a checkout, in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--windows", str(windows)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=root, env=environment, check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(case: str, title: str, windows: int, other: Path | None) -> None:
    """Print what a case costs here and, if asked for, in the other checkout."""
    here = in_checkout(HERE, case, windows)
    there = None if other is None else in_checkout(other, case, windows)
    print(title)
    rows = list(here["spent_s"])
    if "virtual_s" in here:
        print(f"  {windows} windows, {here['virtual_s']:.0f} virtual s with their warm-up")
        rows.append("all")
        for found in filter(None, (here, there)):
            found["spent_s"]["all"] = sum(found["spent_s"].values())
    for row in rows:
        line = f"  {row:<18} {here['spent_s'][row]:8.3f} s"
        if there is not None:
            ratio = there["spent_s"][row] / here["spent_s"][row]
            line += f"   other {there['spent_s'][row]:8.3f} s   {ratio:5.1f} times"
        print(line)
    if "memory_mb" in here:
        line = f"  {'peak memory':<18} {here['memory_mb']:8.0f} MB"
        print(line if there is None else f"{line}  other {there['memory_mb']:8.0f} MB")
    if there is not None:
        same = "equal" if here["digest"] == there["digest"] else "DIFFERENT"
        print(f"  every token and sample: {same}; {_agreement(here['values'], there['values'])}")


def _agreement(here: dict[str, float], there: dict[str, float]) -> str:
    """Say how the metrics and intervals that both know agree."""
    both = here.keys() & there.keys()
    unequal = {name for name in both if here[name] != there[name]}
    if not unequal:
        return f"{len(both)} metrics and ends of intervals: equal"
    worst = max(abs(here[name] / there[name] - 1.0) if there[name] else 1.0 for name in unequal)
    kinds = sorted({name.split()[2] for name in unequal})
    return f"{len(unequal)} of {len(both)} metrics differ, by {worst:.1e} at most: {kinds}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--against", type=Path)
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--cases", nargs="*", default=[*CASES, "requests"])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case is not None:
        sys.path.insert(0, str(Path.cwd()))
        requests = asked.case == "requests"
        found = run_requests() if requests else run_case(CASES[asked.case](), asked.windows)
        print(json.dumps(found))
        return
    other = None if asked.against is None else asked.against.resolve()
    for case in asked.cases:
        if case == "requests":
            compare(case, "1,000 requests of 1,024/256 tokens (target: 0.02 s)", 1, other)
        else:
            compare(case, CASES[case]().title, asked.windows, other)


if __name__ == "__main__":
    main()
