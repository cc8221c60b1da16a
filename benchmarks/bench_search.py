"""Nights of the search beside those of other methods, on the emulator's virtual time.

Prints, for each scenario and method, the share of the true front's hypervolume over hours. Nights
that were simulated before are kept under ~/.cache/tuner/bench-search, by a hash of what made them.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from bench_search_ours import ours
from bench_search_rivals import SAMPLERS, rival
from bench_search_runs import NIGHT_S, Night, World, sweep
from bench_search_scenarios import CACHE, SCENARIOS, Scenario, table_path, truth_of

import tuner.search
from tuner import pareto
from tuner.analysis import verdicts as confirmation
from tuner.study.confirmation import plan as confirm_plan
from tuner.study.proposals import stopping

THIRD_H, NIGHT_H = 2.7, NIGHT_S / 3600.0
HOURS = (1.0, THIRD_H, 5.0, NIGHT_H)
METHODS: dict[str, Callable[[World, int], Night]] = {
    **{name: partial(rival, name) for name in SAMPLERS},
    "sweep": sweep,
    "ours": ours,
}
_HERE = Path(__file__).parent
_TORCH = "torch==2.13.0"  # as for the real vLLM, see .ci/vllm-cpu.sh


def night_of(scenario: Scenario, method: str, seed: int, python: Path | None) -> Night | None:
    """Return a night, from the cache or made now; None if the method cannot run here."""
    path = CACHE / "nights" / f"{method}-{seed}-{_hash(scenario, method)}.json"
    if not path.is_file():
        if method == "gp" and python is not None:
            _in_torch(python, scenario, seed)
            return night_of(scenario, method, seed, None)
        if method == "gp" and not has_torch():
            return None
        night = METHODS[method](World(scenario, truth_of(scenario)), seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(dataclasses.asdict(night)))
        unfinished.replace(path)
    return Night(**json.loads(path.read_text()))


def _hash(scenario: Scenario, method: str) -> str:
    files = [_HERE / "bench_search_runs.py"]
    if method == "ours":
        files += [_HERE / "bench_search_ours.py", _HERE / "bench_search_confirm.py"]
        files += [Path(m.__file__) for m in (confirm_plan, confirmation, stopping, pareto)]
        files += sorted(Path(tuner.search.__path__[0]).rglob("*.py"))
    elif method in SAMPLERS:
        files.append(_HERE / "bench_search_rivals.py")
    digest = hashlib.sha256(f"{table_path(scenario).name} {scenario}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def has_torch() -> bool:
    return (
        subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode == 0
    )


def torch_python() -> Path | None:
    """Return a Python that has torch, in a virtual environment made once; None if that fails."""
    folder = CACHE / "torch"
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", _TORCH], check=True)
    except subprocess.CalledProcessError as error:
        print(f"GPSampler is left out: torch cannot be installed ({error})", flush=True)
        return None
    (folder / "ready").touch()
    return python


def torch_environment() -> dict[str, str]:
    """Return the variables with which the Python with torch finds everything else."""
    root = Path(tuner.search.__path__[0]).parents[1]
    paths = [str(root), sysconfig.get_paths()["purelib"]]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _in_torch(python: Path, scenario: Scenario, seed: int) -> None:
    """Make a night of GPSampler in the environment with torch; everything else comes from here."""
    command = [python, __file__, "--scenario", scenario.name, "--method", "gp"]
    command += ["--seed", str(seed), "--quiet"]
    subprocess.run(command, env=torch_environment(), check=True)


def report(scenario: Scenario, nights: dict[str, list[Night]]) -> None:
    """Print one scenario's table and what it says of the aims."""
    world = World(scenario, truth_of(scenario))
    print(
        f"\n{scenario.name}: {math.prod(scenario.shape)} configurations, "
        f"{world.feasible_share:.0%} meet the SLOs, {len(world.front)} of these are the front"
    )
    print(
        f"{'method':8}{'seeds':>6}{'trials':>8}{'launches':>9}"
        + "".join(f"{f'{h:g} h':>8}" for h in HOURS)
        + f"{'worst':>8}{'front meets SLO':>17}{'J/token over best':>19}"
    )
    for method, found in nights.items():
        print(_line(world, method, found), flush=True)
    others = {m: _shares(n, NIGHT_H) for m, n in nights.items() if m != "ours" and n}
    if "ours" not in nights or not others:
        return
    mine = nights["ours"]
    best = max(others, key=lambda m: statistics.median(others[m]))
    bar = statistics.median(others[best])
    reached = [next((t / 3600 for t, s in n.trace if s >= bar), math.inf) for n in mine]
    slowest = max(max(n.proposal_s) for n in mine)
    print(
        f"best other after {NIGHT_H:g} h: {best} {bar:.3f}; ours reaches that after "
        f"{statistics.median(reached):.1f} h (each: {', '.join(f'{h:.1f}' for h in reached)}); "
        f"it searched for {statistics.median(n.search_s for n in mine) / 3600:.1f} h and confirmed "
        f"{statistics.median(len(n.handed_over) for n in mine):.0f} members, "
        f"{sum(len(n.unsure) for n in mine)} left unsure in all; slowest proposal {slowest:.1f} s"
    )


def _shares(nights: Sequence[Night], hours: float) -> list[float]:
    return [night.share_at(hours) for night in nights]


def _line(world: World, method: str, nights: Sequence[Night]) -> str:
    shares = [statistics.median(_shares(nights, hours)) for hours in HOURS]
    members = [world.true_values(p) is not None for n in nights for p in n.handed_over]
    meets = f"{sum(members)}/{len(members)}" if members else "-"
    regrets = [_regret(world, n) for n in nights]
    return (
        f"{method:8}{len(nights):6}"
        f"{statistics.median(n.evaluations for n in nights):8.0f}"
        f"{statistics.median(n.launches for n in nights):9.0f}"
        + "".join(f"{share:8.3f}" for share in shares)
        + f"{min(_shares(nights, NIGHT_H)):8.3f}{meets:>17}{statistics.median(regrets):19.1%}"
    )


def _regret(world: World, night: Night) -> float:
    """Return how much more energy the recommended configuration takes than the best one, a share.

    The first of the front is recommended; one that truly misses the SLO has no regret: infinity.
    """
    if not night.handed_over:
        return math.inf
    values = world.true_values(night.handed_over[0])
    return math.inf if values is None else math.exp(values[0] - float(world.front[0, 0])) - 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--scenario", choices=[s.name for s in SCENARIOS], action="append")
    parser.add_argument("--quiet", action="store_true", help="make the nights, print nothing")
    options = parser.parse_args()
    methods = options.method or list(METHODS)
    seeds = range(options.seeds) if options.seed is None else [options.seed]
    python = torch_python() if "gp" in methods and not has_torch() else None
    for scenario in SCENARIOS:
        if options.scenario and scenario.name not in options.scenario:
            continue
        nights: dict[str, list[Night]] = {}
        for method in methods:
            began_s = time.monotonic()
            made = [night_of(scenario, method, seed, python) for seed in seeds]
            nights[method] = [night for night in made if night is not None]
            if not options.quiet:
                print(
                    f"{scenario.name}: {method} in {time.monotonic() - began_s:.0f} s", flush=True
                )
        if not options.quiet:
            report(scenario, {m: n for m, n in nights.items() if n})


if __name__ == "__main__":
    np.seterr(under="ignore")
    main()
