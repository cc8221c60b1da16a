"""The scenarios of the search's benchmark, and the true value of each of their configurations.

A scenario's whole grid is simulated once, without noise and with the same requests, and kept under
~/.cache/tuner/bench-search; the name of the file holds a hash of the emulator, without its server,
and of the scenario.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import tuner
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import DEVICE_KNOBS, LOAD_KNOBS, Configuration, Value
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.virtual import simulate
from tuner.evaluation.emulated.virtual import emulated_defaults
from tuner.load.overload import served_share
from tuner.load.workload import load_workload
from tuner.measurement.reduce import reduce_run
from tuner.metrics import TEXT
from tuner.records import Failure, Load, Measurement, RawRun, Request
from tuner.slo import Slo
from tuner.spec.objective import Objective

METRICS = (
    "energy_per_output_token_j",
    "output_throughput_tok_s",
    "p99_tpot_ms",
    "p99_ttft_ms",
)
LAUNCH_KNOBS = ("gpu_memory_utilization", "kv_cache_dtype", "tensor_parallel_size")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuner" / "bench-search"
WORKS, OVERLOADED, REFUSED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """A task and every value of its knobs, among them what vLLM and the GPU do by themselves."""

    name: str
    gpu: str
    model: str
    workload: str
    load: Load
    max_model_len: int
    window_s: tuple[float, float]
    knobs: Mapping[str, tuple[Value, ...]]
    slos: tuple[Slo, ...]

    @property
    def default(self) -> dict[str, Value]:
        known = emulated_defaults(load_gpu(self.gpu), self.load)
        return {name: known[name] for name in self.knobs}

    @property
    def fixed(self) -> dict[str, Value]:
        # no two prompts share a prefix, and to look for one takes half of a simulation
        return {"max_model_len": self.max_model_len, "enable_prefix_caching": False}

    @property
    def needed(self) -> tuple[str, ...]:
        return tuple(part.metric for part in (*OBJECTIVES, *self.slos))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.knobs.values())

    def levels(self, point: Mapping[str, Value]) -> tuple[int, ...]:
        return tuple(values.index(point[name]) for name, values in self.knobs.items())

    def point(self, levels: tuple[int, ...]) -> dict[str, Value]:
        pairs = zip(self.knobs.items(), levels, strict=True)
        return {name: values[level] for (name, values), level in pairs}

    def configuration(self, point: Mapping[str, Value]) -> Configuration:
        device = {k: v for k, v in point.items() if k in DEVICE_KNOBS}
        flags = {k: v for k, v in point.items() if k not in (*DEVICE_KNOBS, *LOAD_KNOBS)}
        return Configuration(flags={**self.fixed, **flags}, device=device)


OBJECTIVES = tuple(map(Objective.parse, TEXT.objectives))
_KV_TYPES = ("auto", "fp8")
_LLAMA = "meta-llama/Llama-3.1-8B-Instruct"

# The grounds of each figure stand in docs/optimiser.md; they were settled before any night was run.
CHAT = Scenario(
    name="chat on H100",
    gpu="H100-SXM",
    model=_LLAMA,
    workload="chat",
    load=Load(request_rate=6.0),
    max_model_len=16384,
    window_s=(30.0, 65.0),
    knobs={
        "max_num_seqs": (16, 32, 64, 128, 256, 512, 1024),
        "max_num_batched_tokens": (512, 1024, 2048, 8192),
        "gpu_memory_utilization": (0.4, 0.92),
        "kv_cache_dtype": _KV_TYPES,
        "power_limit_w": tuple(range(200, 701, 100)),
    },
    slos=(Slo.parse("p99_tpot_ms<=40"), Slo.parse("p99_ttft_ms<=300")),
)

CODE = Scenario(
    name="code on L40S",
    gpu="L40S",
    model=_LLAMA,
    workload="code",
    load=Load(concurrency=32),
    max_model_len=16384,
    window_s=(30.0, 90.0),
    knobs={
        "max_num_seqs": (8, 16, 32, 64, 256),
        "max_num_batched_tokens": (512, 1024, 2048, 8192),
        "gpu_memory_utilization": (0.5, 0.92),
        "kv_cache_dtype": _KV_TYPES,
        "power_limit_w": tuple(range(100, 351, 50)),
        "concurrency": (4, 8, 16, 32),
    },
    slos=(Slo.parse("p99_tpot_ms<=80"), Slo.parse("p99_ttft_ms<=1000")),
)

REASONING = Scenario(
    name="reasoning on H200",
    gpu="H200-SXM",
    model="Qwen/Qwen3-32B",
    workload="reasoning",
    load=Load(concurrency=96),
    max_model_len=40960,
    window_s=(300.0, 800.0),
    knobs={
        "max_num_seqs": (8, 16, 32, 48, 64, 1024),
        "max_num_batched_tokens": (512, 2048, 8192),
        "gpu_memory_utilization": (0.7, 0.92),
        "kv_cache_dtype": _KV_TYPES,
        "tensor_parallel_size": (1, 2),
        "sm_clock_mhz": tuple(range(780, 1981, 240)),
    },
    slos=(Slo.parse("p99_tpot_ms<=25"),),
)

# Nothing of the search was chosen while looking at the nights of these two.
MIXTURE = Scenario(
    name="chat on B200",
    gpu="B200-SXM",
    model="Qwen/Qwen3-30B-A3B",
    workload="chat",
    load=Load(concurrency=256),
    max_model_len=16384,
    window_s=(30.0, 65.0),
    knobs={
        "max_num_seqs": (32, 64, 128, 256, 1024),
        "max_num_batched_tokens": (512, 2048, 16384),
        "gpu_memory_utilization": (0.45, 0.92),
        "kv_cache_dtype": _KV_TYPES,
        "sm_clock_mhz": (*range(900, 1861, 240), 2100),
        "concurrency": (32, 128, 256),
    },
    slos=(Slo.parse("p99_tpot_ms<=30"), Slo.parse("p99_ttft_ms<=150")),
)

COMPLETION = Scenario(
    name="code on A100",
    gpu="A100-SXM-80G",
    model="Qwen/Qwen3-14B",
    workload="code",
    load=Load(request_rate=3.0),
    max_model_len=16384,
    window_s=(30.0, 90.0),
    knobs={
        "max_num_seqs": (8, 16, 32, 64, 128, 256, 1024),
        "max_num_batched_tokens": (512, 1024, 2048, 8192),
        "gpu_memory_utilization": (0.5, 0.92),
        "tensor_parallel_size": (1, 2),
        "power_limit_w": tuple(range(150, 401, 50)),
    },
    slos=(Slo.parse("p99_tpot_ms<=60"),),
)

SCENARIOS = (CODE, CHAT, REASONING, MIXTURE, COMPLETION)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What each configuration of a scenario really does; axes are the knobs, then the metrics.

    `overload` is the log of the load offered over that served, 0 where it keeps up and NaN where it
    is not known.
    """

    state: NDArray[np.int8]
    metrics: NDArray[np.float64]
    overload: NDArray[np.float64]

    def of(self, levels: tuple[int, ...]) -> tuple[int, dict[str, float]]:
        row = self.metrics[levels]
        return int(self.state[levels]), dict(zip(METRICS, map(float, row), strict=True))


class FixedWatch:
    """A window whose times are known before the load begins."""

    def __init__(self, start_s: float, end_s: float) -> None:
        self.window_start_s, self.window_end_s = start_s, end_s

    def started(self, now_s: float) -> None:
        pass

    def sent(self, now_s: float) -> None:
        pass

    def finished(self, now_s: float) -> None:
        pass


def truth_of(scenario: Scenario) -> Truth:
    """Return the scenario's table, simulated now if the emulator is not the one it was made by."""
    path = table_path(scenario)
    if not path.is_file():
        truth = _simulated(scenario)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.npz")
        np.savez_compressed(
            unfinished, state=truth.state, metrics=truth.metrics, overload=truth.overload
        )
        unfinished.replace(path)
    with np.load(path) as data:
        return Truth(data["state"], data["metrics"], data["overload"])


def table_path(scenario: Scenario) -> Path:
    """Return where the table of the present emulator is kept, whether it is there or not."""
    return CACHE / f"{scenario.name.replace(' ', '-')}-{_hash(scenario)}.npz"


def _hash(scenario: Scenario) -> str:
    root = Path(tuner.__file__).parent
    digest = hashlib.sha256()
    served = [root / "emulator" / "http", root / "load" / "client"]  # a simulation does without
    for part in ("emulator", "emulator/http/flag_numbers.py", "load", "measurement/reduce.py"):
        place = root / part
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            is_served = place.is_dir() and file.parent in served
            if file.suffix in (".py", ".yaml") and not is_served:
                digest.update(file.read_bytes())
    digest.update(load_workload(scenario.workload).sha256.encode())
    task = (scenario.gpu, scenario.model, scenario.load, scenario.fixed)
    kept = [field.name for field in dataclasses.fields(Truth)]
    what = (task, scenario.window_s, list(scenario.knobs.items()), scenario.needed, kept)
    digest.update(repr(what).encode())
    return digest.hexdigest()[:16]


def _simulated(scenario: Scenario) -> Truth:
    state = np.full(scenario.shape, REFUSED, dtype=np.int8)
    metrics = np.full((*scenario.shape, len(METRICS)), np.nan)
    overload = np.full(scenario.shape, np.nan)
    began_s = time.monotonic()
    task = _Task(scenario)
    for done, levels in enumerate(itertools.product(*map(range, scenario.shape))):
        if done % 500 == 0:
            spent_s = time.monotonic() - began_s
            print(
                f"{scenario.name}: {done} of {state.size} simulated in {spent_s:.0f} s", flush=True
            )
        try:
            run = task.run(scenario.point(levels))
        except LaunchRefusedError:
            continue
        result = reduce_run(run, {})
        found = {} if isinstance(result, Failure) else result.metrics
        state[levels] = WORKS if all(name in found for name in scenario.needed) else OVERLOADED
        metrics[levels] = [found.get(name, np.nan) for name in METRICS]
        overload[levels] = _overload(result)
    return Truth(state, metrics, overload)


def _overload(result: Measurement | Failure) -> float:
    if isinstance(result, Measurement):
        return 0.0
    share = served_share(result.reason)
    return math.nan if share is None else -math.log(share)


class _Task:
    """What all configurations share, made once: the model, the GPU, and the same requests."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._model, self._gpu = load_model(scenario.model), load_gpu(scenario.gpu)
        self._source = load_workload(scenario.workload).requests()
        self._made: list[Request] = []

    def run(self, point: Mapping[str, Value]) -> RawRun:
        load = self._scenario.load
        if "concurrency" in point:
            load = Load(concurrency=int(point["concurrency"]))
        return simulate(
            self._model,
            self._gpu,
            self._scenario.configuration(point),
            self._requests(),
            load,
            FixedWatch(*self._scenario.window_s),
            seed=0,
            noise=False,
        )

    def _requests(self) -> Iterator[Request]:
        for index in itertools.count():
            if index == len(self._made):
                self._made.append(next(self._source))
            yield self._made[index]


def main() -> None:
    for scenario in SCENARIOS:
        truth_of(scenario)


if __name__ == "__main__":
    main()
