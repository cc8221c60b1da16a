"""Nights of the search beside those of other methods, on the emulator's virtual time.

Prints, for each scenario and method, the share of the true front's hypervolume over hours, and how
much more energy the best evaluated configuration takes than the best of the grid. Both are of true
values, where every SLO is truly met. Nights that were simulated before are kept under
~/.cache/tuner/bench-search, by a hash of what made them.
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
from bench_search_ours import SEARCH_S, ours
from bench_search_rivals import SAMPLERS, rival
from bench_search_runs import NIGHT_S, Night, World, sweep
from bench_search_scenarios import CACHE, SCENARIOS, Scenario, table_path, truth_of

import tuner.search
from tuner import pareto
from tuner.study.proposals import stopping

THIRD_H, NIGHT_H = 2.7, NIGHT_S / 3600.0
DIGITS = 3  # of a share: nights that differ by less are a tie
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
    digest = hashlib.sha256(f"{table_path(scenario).name} {scenario}".encode())
    if method == "ours":
        digest.update(str(SEARCH_S).encode())
        files += [_HERE / "bench_search_ours.py"]
        files += [Path(m.__file__) for m in (stopping, pareto)]
        files += sorted(Path(tuner.search.__path__[0]).rglob("*.py"))
    elif method in SAMPLERS:
        files.append(_HERE / "bench_search_rivals.py")
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
        + f"{'worst':>8}{'J/token over best':>19}"
    )
    for method, found in nights.items():
        print(_line(world, method, found), flush=True)
    others = {m: _shares(n, NIGHT_H) for m, n in nights.items() if m != "ours" and n}
    if "ours" not in nights or not others:
        return
    mine = nights["ours"]
    best = max(others, key=lambda m: statistics.median(others[m]))
    bar = round(statistics.median(others[best]), DIGITS)
    reached = [_hours_to(night, bar) for night in mine]
    slowest = max(max(n.proposal_s) for n in mine)
    print(
        f"best other after {NIGHT_H:g} h: {best} {bar:.{DIGITS}f}; ours reaches that, to so many "
        f"digits, after {statistics.median(reached):.1f} h "
        f"(each: {', '.join(f'{h:.1f}' for h in reached)}); it searched for "
        f"{statistics.median(n.search_s for n in mine) / 3600:.1f} h; "
        f"slowest proposal {slowest:.1f} s"
    )


def _hours_to(night: Night, bar: float) -> float:
    """Return after how many hours a night's rounded share is at `bar`; infinity if never."""
    return next((t / 3600 for t, s in night.trace if round(s, DIGITS) >= bar), math.inf)


def _shares(nights: Sequence[Night], hours: float) -> list[float]:
    return [night.share_at(hours) for night in nights]


def _line(world: World, method: str, nights: Sequence[Night]) -> str:
    shares = [statistics.median(_shares(nights, hours)) for hours in HOURS]
    over = [math.expm1(night.least - float(world.front[0, 0])) for night in nights]
    return (
        f"{method:8}{len(nights):6}"
        f"{statistics.median(n.evaluations for n in nights):8.0f}"
        f"{statistics.median(n.launches for n in nights):9.0f}"
        + "".join(f"{share:8.3f}" for share in shares)
        + f"{min(_shares(nights, NIGHT_H)):8.3f}{statistics.median(over):19.1%}"
    )


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
