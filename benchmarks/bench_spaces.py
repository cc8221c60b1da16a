"""What each shipped space saves, and how soon a search of all of them finds it: prints two tables.

    python benchmarks/bench_spaces.py [--hours 4] [--cases 0 1 2 3]

Everything is emulated, on a virtual clock. The best of a space is that of a coarse grid, simulated
without noise; the baseline is vLLM's default, for the 70B model with four GPUs. A search of
`everything` is within 2 % once the best trial that it knows to meet the SLO, simulated without
noise like the grid, is; the grid has few values of each knob, so the search may find less energy.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tuner
from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration, Value
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.virtual import simulate
from tuner.load.workload import load_workload
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import Load, Measurement
from tuner.slo import Slo, meets_all

ENERGY = "energy_per_output_token_j"
NEAR = 1.02
REQUESTS = 2400  # of two minutes at 2/s a p99 is met by a clock that misses it in the long run
SPECULATION = "speculative_config."
Flags = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Case:
    """A model on a GPU at a rate, requests/s; `own` are the flags of its baseline.

    `tpot_ms` bounds p99 TPOT.
    """

    model: str
    gpu: str
    rate: float
    own: tuple[str, ...] = ()
    tpot_ms: float = 50.0

    @property
    def slos(self) -> tuple[Slo, ...]:
        """The SLOs."""
        return Slo("p99_tpot_ms", self.tpot_ms), Slo("p99_ttft_ms", 2000.0)


CASES = (
    Case("meta-llama/Llama-3.1-8B-Instruct", "H200-SXM", 1.0),
    Case("meta-llama/Llama-3.1-8B-Instruct", "H200-SXM", 4.0),
    Case("meta-llama/Llama-3.1-8B-Instruct", "H200-SXM", 16.0, tpot_ms=100.0),
    Case("meta-llama/Llama-3.1-70B-Instruct", "H100-SXM", 2.0, ("tensor_parallel_size=4",)),
)
SPACES = ("default", "power", "precision", "speculative", "parallel", "everything")


def grid(space: str, gpu: Gpu, own: Flags) -> Iterator[Configuration]:
    """Yield a few values of each knob of a space, over the baseline's own flags."""
    parts: dict[str, Sequence[Flags]] = {
        "default": [{"max_num_seqs": 8}, {"max_num_seqs": 64}, {}],
        "precision": [
            {**weights, **cache}
            for weights in ({}, {"quantization": "fp8"})
            for cache in ({}, {"kv_cache_dtype": "fp8"})
        ],
        "speculative": [
            {},
            *(
                {SPECULATION + "method": method, SPECULATION + "num_speculative_tokens": depth}
                for method, depths in (("ngram", (1, 2, 4)), ("suffix", (4, 8)))
                for depth in depths
            ),
        ],
        "parallel": [
            {"tensor_parallel_size": tensor, "data_parallel_size": data}
            for tensor, data in itertools.product((1, 2, 4, 8), (1, 2, 4))
            if tensor * data <= gpu.max_gpus
        ],
    }
    clocks = [gpu.max_clock_mhz - 120 * step for step in range(11)]
    devices: list[Flags] = [{}] if space not in ("power", "everything") else []
    if not devices:
        devices = [{}, *({"sm_clock_mhz": mhz} for mhz in clocks if mhz >= 780)]
    chosen = parts.values() if space == "everything" else [parts.get(space, [{}])]
    for flags in itertools.product(*chosen):
        merged: Flags = dict(own)
        for part in flags:
            merged |= part
        for device in devices:
            yield Configuration(flags=merged, device=device)


def truth(case: Case, configuration: Configuration) -> Measurement | None:
    """Simulate `REQUESTS` without noise; None for what does not start or keep up."""
    plan = WindowPlan(window_s=REQUESTS / case.rate, warmup_limit_s=240.0)
    try:
        raw = simulate(
            load_model(case.model),
            load_gpu(case.gpu),
            configuration,
            load_workload("chat").requests(),
            Load(request_rate=case.rate),
            SteadyWindow(plan),
            seed=0,
            noise=False,
        )
    except LaunchRefusedError:
        return None
    found = reduce_run(raw, {})
    return found if isinstance(found, Measurement) else None


def good_energy_j(case: Case, configuration: Configuration) -> float | None:
    """Return J per output token of a configuration that meets the SLO, else None."""
    found = truth(case, configuration)
    if found is None or not meets_all(found.metrics, case.slos):
        return None
    return found.metrics[ENERGY]


def best_of_grid(case: Case, space: str, own: Flags) -> tuple[float, Configuration] | None:
    """Return the least energy of a grid, with its configuration; None if none meets the SLO.

    All of `everything` would take hours: one part after another is searched over the best of the
    others, twice.
    """
    gpu = load_gpu(case.gpu)
    if space != "everything":
        found = [(good_energy_j(case, c), c) for c in grid(space, gpu, own)]
        good = ((j, c) for j, c in found if j is not None)
        return min(good, key=lambda one: one[0], default=None)
    first = best_of_grid(case, "default", own) or best_of_grid(case, "parallel", own)
    if first is None:
        return None
    best_j, best = first
    for part in 2 * ("parallel", "precision", "speculative", "power", "default"):
        for one in grid(part, gpu, {}):
            kept = {k: v for k, v in best.flags.items() if not _same_part(k, part)}
            device = one.device if part == "power" else best.device
            tried = Configuration(flags={**kept, **one.flags}, device=device)
            energy_j = good_energy_j(case, tried)
            if energy_j is not None and energy_j < best_j:
                best_j, best = energy_j, tried
    return best_j, best


def _same_part(flag: str, part: str) -> bool:
    of = {
        "parallel": ("tensor_parallel_size", "data_parallel_size"),
        "precision": ("quantization", "kv_cache_dtype"),
        "default": ("max_num_seqs",),
    }
    return flag in of.get(part, ()) or (part == "speculative" and flag.startswith(SPECULATION))


def search(case: Case, hours: float, target_j: float, own: Flags) -> tuple[float | None, float]:
    """Return after how many virtual hours a search is within 2 %, and the least energy it found."""
    options = {
        "model": case.model,
        "emulate": case.gpu,
        "request_rate": case.rate,
        "space": "everything",
        "slo": [str(slo) for slo in case.slos],
        "hours": hours,
        "stop_when_flat": False,
        "confirm": False,
        "allow_output_changes": True,
        **({"set": list(case.own)} if case.own else {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        study = tuner.run(
            tuner.study_spec(None, options), store=str(Path(folder, "bench.db")), yes=True
        )
        spent_s, known_j, least_j, hours_to = 0.0, float("inf"), float("inf"), None
        for row in study.rows:
            spent_s += 0.0 if row.timing is None else row.timing.elapsed_s
            found = row.measurement
            if found is None or found.ended_early or not meets_all(found.metrics, case.slos):
                continue
            if found.metrics[ENERGY] >= known_j:
                continue
            known_j = found.metrics[ENERGY]
            whole = Configuration(
                {**own, **row.configuration.flags}, device=row.configuration.device
            )
            true_j = good_energy_j(case, whole)
            least_j = min(least_j, float("inf") if true_j is None else true_j)
            if hours_to is None and least_j <= NEAR * target_j:
                hours_to = spent_s / 3600.0
    return hours_to, least_j


def shown(configuration: Configuration) -> str:
    """Return the knobs of a configuration in a line."""
    knobs = {**configuration.flags, **configuration.device}
    return " ".join(f"{name.removeprefix(SPECULATION)}={value}" for name, value in knobs.items())


def main() -> None:
    """Print both tables for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)))
    arguments = parser.parse_args()
    for case in [CASES[number] for number in arguments.cases]:
        own: Flags = dict(tuner.parse_settings(case.own).flags)
        baseline_j = good_energy_j(case, Configuration(flags=own))
        print(f"\n{case.model} on {case.gpu}, chat at {case.rate:g} requests/s, emulated")
        print(f"p99 TPOT <= {case.tpot_ms:g} ms, p99 TTFT <= 2 s")
        known = "misses the SLO" if baseline_j is None else f"{baseline_j:.4f} J/token"
        print(f"{'baseline':12} {known}  {' '.join(case.own)}")
        target_j = 0.0
        for space in SPACES:
            found = best_of_grid(case, space, own)
            if found is None:
                print(f"{space:12} nothing meets the SLO", flush=True)
                continue
            target_j, best = found
            saving = "" if baseline_j is None else f"{100.0 * (1.0 - target_j / baseline_j):5.1f} %"
            print(f"{space:12} {target_j:.4f} J/token  {saving}  {shown(best)}", flush=True)
        hours, least_j = search(case, arguments.hours, target_j, own)
        when = "never" if hours is None else f"after {hours:.1f} h"
        beside = 100.0 * (least_j / target_j - 1.0)
        print(f"search of everything: within 2 % of the grid's best {when}; after", end=" ")
        print(f"{arguments.hours:g} h {least_j:.4f} J/token, {beside:+.1f} % beside the grid's")


if __name__ == "__main__":
    main()
