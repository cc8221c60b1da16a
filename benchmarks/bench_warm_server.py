"""What a kept server saves on a real vLLM, and whether limits set live measure as a launch does.

    TUNER_VLLM=/path/to/vllm python benchmarks/bench_warm_server.py

The same configurations of a tiny model on a CPU, with the same measurement time, in one run:
evaluations per hour on one warm server (its launch included) against a launch for each, and each
configuration's throughput and TPOT under live limits against clean launches.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluation, Evaluator
from tuner.evaluation.factory import RunContext, make_evaluator, measurement_plan, space_knobs
from tuner.evaluation.supervision import supervised
from tuner.load.workload import load_workload
from tuner.measurement.listener import NoteListener
from tuner.records import Failure
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import StudySpec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.studies import TINY_LLAMA, let_come_first

FIXED: dict[str, dict[str, str | int | bool]] = {
    "flags": {
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "dtype": "float32",
        "max_model_len": 256,
    },
    # the client has a core of its own
    "environment": {
        "HF_HUB_OFFLINE": 1,
        "VLLM_CPU_KVCACHE_SPACE": 1,
        "VLLM_CPU_OMP_THREADS_BIND": 0,
    },
}
COMPARED = ((4, 256), (16, 512), (64, 2048))  # max_num_seqs, max_num_batched_tokens
METRICS = ("output_throughput_tok_s", "p50_tpot_ms")


@dataclass
class Side:
    """The evaluations of one way to get a server."""

    seconds: list[float] = field(default_factory=list)
    launches_s: list[float] = field(default_factory=list)
    values: dict[tuple[int, int], list[tuple[float, ...]]] = field(default_factory=dict)

    def add(self, pair: tuple[int, int], evaluation: Evaluation) -> None:
        """Count an evaluation; one that brought nothing took its time all the same."""
        self.seconds.append(evaluation.timing.elapsed_s)
        if evaluation.timing.launch_s is not None:
            self.launches_s.append(evaluation.timing.launch_s)
        result = evaluation.result
        if isinstance(result, Failure):
            print(f"  {pair}: {result.kind}: {result.reason}", file=sys.stderr)
            return
        found = tuple(result.metrics[name] for name in METRICS)
        self.values.setdefault(pair, []).append(found)

    @property
    def per_hour(self) -> float:
        """Evaluations per hour, launches included."""
        return 3600.0 * len(self.seconds) / sum(self.seconds)


def configuration(pair: tuple[int, int]) -> Configuration:
    """Return the configuration with these limits."""
    return Configuration(flags={"max_num_seqs": pair[0], "max_num_batched_tokens": pair[1]})


async def both_sides(evaluator: Evaluator, evaluations: int, repeats: int) -> tuple[Side, Side]:
    """Evaluate on one warm server, then with a launch for each."""
    kept, launched = Side(), Side()
    for number, pair in enumerate(itertools.islice(itertools.cycle(COMPARED), evaluations)):
        kept.add(pair, await evaluator.evaluate(configuration(pair), number))
    for number, pair in enumerate(COMPARED * repeats):
        launched.add(pair, await evaluator.confirm(configuration(pair), number, number))
    return kept, launched


def evaluator_for(folder: Path, window_s: float, eager: bool) -> tuple[Evaluator, RunContext]:
    """Return the evaluator of a study of the two limits on a tiny model."""
    model = folder / "tiny"
    model.mkdir()
    (model / "config.json").write_text(TINY_LLAMA)
    flags = {
        "max_num_seqs": {"type": "power_of_two", "low": 1, "high": 128},
        "max_num_batched_tokens": {"type": "power_of_two", "low": 256, "high": 2048},
    }
    fixed_flags = {**FIXED["flags"], "enforce_eager": eager}
    space = SearchSpace.model_validate(
        {"name": "bench", "fixed": {**FIXED, "flags": fixed_flags}, "flags": flags}
    )
    spec = StudySpec(
        model=str(model),
        workload="smoke",
        concurrency=48,
        trials=1,
        window_s=window_s,
        vllm=os.environ["TUNER_VLLM"],
    )
    fixed = Configuration(flags=dict(space.fixed.flags), environment=dict(space.fixed.environment))
    task = measurement_plan(spec, load_workload(spec.workload), fixed)
    place = RunContext(
        f"bench-warm-server-{os.getpid()}", folder / "logs", listener=NoteListener(print)
    )
    return make_evaluator(spec, task, space_knobs(space), place), place


def table(kept: Side, launched: Side) -> Iterable[str]:
    """Yield the comparison of each configuration, as rows."""
    yield f"{'seqs':>5} {'tokens':>6} {'metric':<26} {'live limits':>20} {'clean launch':>20} ratio"
    for pair in COMPARED:
        for column, name in enumerate(METRICS):
            live = [v[column] for v in kept.values.get(pair, [])]
            clean = [v[column] for v in launched.values.get(pair, [])]
            if not live or not clean:
                yield f"{pair[0]:5} {pair[1]:6} {name:<26} nothing to compare"
                continue
            ratio = statistics.median(live) / statistics.median(clean)
            yield f"{pair[0]:5} {pair[1]:6} {name:<26} {spread(live)} {spread(clean)} {ratio:.3f}"


def spread(values: Sequence[float]) -> str:
    """Return median, lowest and highest."""
    return f"{statistics.median(values):7.1f} ({min(values):.1f}-{max(values):.1f})".rjust(20)


async def bench(evaluations: int, repeats: int, window_s: float, eager: bool) -> None:
    """Run, and print the ratio and the comparison."""
    with tempfile.TemporaryDirectory(prefix="tuner-bench-") as name:
        evaluator, place = evaluator_for(Path(name), window_s, eager)
        async with supervised(evaluator, place):
            await evaluator.prepare()
            kept, launched = await both_sides(evaluator, evaluations, repeats)
    print(
        f"one warm server:   {kept.per_hour:6.1f} evaluations per hour "
        f"({len(kept.seconds)} evaluations, {len(kept.launches_s)} launches)\n"
        f"a launch for each: {launched.per_hour:6.1f} evaluations per hour "
        f"({len(launched.seconds)} launches, median {statistics.median(launched.launches_s):.0f} s)"
        f"\nratio: {kept.per_hour / launched.per_hour:.1f}"
    )
    for row in table(kept, launched):
        print(row)


if __name__ == "__main__":
    if "TUNER_VLLM" not in os.environ:
        sys.exit("TUNER_VLLM has to name a vllm executable")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=24, help="on the warm server")
    parser.add_argument("--repeats", type=int, default=3, help="clean launches per configuration")
    parser.add_argument("--window-s", type=float, default=6.0)
    parser.add_argument("--eager", action="store_true", help="no compilation: short launches")
    given = parser.parse_args()
    if not let_come_first(os.getpid()):
        print("without the right to a real-time priority some windows may be thrown away")
    asyncio.run(bench(given.evaluations, given.repeats, given.window_s, given.eager))
