"""What racing saves, and whom it ends that would have been on the front: prints a line a study.

    PYTHONPATH=tests:benchmarks python -m benchmarks.bench_racing [--trials 40] [--seeds 1]
    PYTHONPATH=tests:benchmarks python -m benchmarks.bench_racing --vllm .../vllm [--trials 12]

A study of each chat and code scenario of `bench_deployable` runs without racing, so that every
window is known to its end. Then its trials are told again, in order, to watches that race: a trial
that is ended is no rival of later ones. One was ended falsely if its whole window is on the front
of the whole study; `by` is how much better it is there than the trials that are left, in the
objective in which it is better by most. The slack of the race is 0.5 % of energy and 2 % of a
latency. What a search would propose instead of what it was told too little of is not in it.

With `--vllm` the study is one of a real vLLM, built for CPUs, with a tiny model and random
configurations; the energy is that of an emulated GPU that does what the server reports.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deployable_scenarios import SCENARIOS, Scenario
from helpers.studies import TINY_LLAMA
from helpers.virtual_loads import replay

from tuner.analysis.outcomes import front_of, meets_slo
from tuner.load.workload import load_workload
from tuner.measurement.racing.race import Race
from tuner.measurement.racing.rival import Rival, rival_of
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.pareto import hypervolume
from tuner.records import RawRun
from tuner.spec.study import StudySpec, spec_from
from tuner.store import Store, TrialRow
from tuner.study.defaults.windows import fitted_windows
from tuner.study.listener import NullListener
from tuner.study.run import start_study

_MOST_MISSES = 6
_ROOM = 0.05  # of the reference point beyond the default, log


_CPU_SPACE = """
name: cpu-race
fixed:
  flags: {load_format: dummy, skip_tokenizer_init: true, enforce_eager: true, max_model_len: 256}
  environment: {HF_HUB_OFFLINE: 1, VLLM_CPU_KVCACHE_SPACE: 1}
flags:
  max_num_seqs: {type: power_of_two, low: 2, high: 128}
  max_num_batched_tokens: {type: power_of_two, low: 64, high: 4096}
  dtype: {type: choice, choices: [float32, bfloat16], default: float32}
"""
_CPU_LOAD = """
description: Short answers, of which a two-core machine makes several a second.
sources: ["Lengths: chosen so that it does."]
prompt_tokens: {distribution: uniform, min: 32, max: 128}
output_tokens: {distribution: uniform, min: 16, max: 96}
load: {request_rate: 4.0}
vocab_size: 512
"""


@dataclass(frozen=True, slots=True)
class Studied:
    """A study without racing: its spec, its trials, and what was recorded of each."""

    spec: StudySpec
    trials: list[TrialRow]
    runs: dict[int, RawRun]
    spent_s: float


def study(scenario: Scenario, seed: int, trials: int, folder: Path) -> Studied:
    """Run a study, or read it if the folder has it."""
    name, space = f"{scenario.name}-{seed}", folder / f"{scenario.name}.yaml"
    space.write_text(scenario.space)
    options = {"trials": trials, "seed": seed, "study": name, "space": str(space), "confirm": False}
    asked = spec_from(None, {**scenario.options, **options})
    spec = fitted_windows(asked, load_workload(asked.workload)).spec
    path = folder / f"{name}.db"
    is_new = not path.exists()
    with Store.open(path, create=True) as store:
        if is_new:
            asyncio.run(start_study(spec, store, NullListener(), yes=True))
        rows = store.trials(name)
        found = {t.number: run for t in rows if (run := store.raw_run(name, t.number)) is not None}
        if "vllm" in scenario.options:
            found = {number: since_first_request(run) for number, run in found.items()}
        return Studied(spec, rows, found, store.study(name).spent_s)


def since_first_request(run: RawRun) -> RawRun:
    """Return a run in real time as if its load had begun at 0, as one in virtual time does."""
    by_s = min(record.scheduled_s for record in run.requests)
    requests = tuple(
        replace(
            record,
            scheduled_s=record.scheduled_s - by_s,
            sent_s=record.sent_s - by_s,
            token_times_s=record.token_times_s - by_s,
            ended_s=record.ended_s - by_s,
        )
        for record in run.requests
    )
    return replace(
        run,
        requests=requests,
        power=replace(run.power, times_s=run.power.times_s - by_s),
        server=replace(run.server, times_s=run.server.times_s - by_s),
        window_start_s=run.window_start_s - by_s,
        window_end_s=run.window_end_s - by_s,
    )


def on_cpu(vllm: str, folder: Path) -> Scenario:
    """Return the scenario of a real vLLM with a tiny model, whose files it writes to `folder`."""
    model, load = folder / "tiny", folder / "cpu.yaml"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(TINY_LLAMA)
    load.write_text(_CPU_LOAD)
    options = {
        "vllm": vllm,
        "model": str(model),
        "workload": str(load),
        "slo": ["p50_tpot_ms<=100", "p90_ttft_ms<=1000"],
        "objective": ["energy_per_output_token_j", "p50_tpot_ms"],
        "sampler": "random",
        "window_s": 90.0,
        "checks": False,
    }
    return Scenario("tiny-cpu", options, whole_space=_CPU_SPACE)


def race_again(of: Studied) -> tuple[list[TrialRow], dict[int, float]]:
    """Return the trials that are left, and when each of the others was ended, s of load."""
    slos, objectives = of.spec.slos, of.spec.objectives
    kept: list[TrialRow] = []
    rivals: dict[int, Rival] = {}
    ended: dict[int, float] = {}
    for trial in of.trials:
        run, result = of.runs.get(trial.number), trial.measurement
        if run is None:
            continue
        if not trial.baseline:
            missing = sorted(
                (t for t in kept if not meets_slo(t, slos)), key=lambda t: _miss(of.spec, t)
            )
            chosen = {t.number for t in (*kept[:1], *front_of(kept, slos, objectives))}
            chosen |= {t.number for t in missing[:_MOST_MISSES]}
            race = Race(tuple(o.metric for o in objectives), slos, tuple(rivals[n] for n in chosen))
            begins_s = of.runs[0].window_start_s
            watch = SteadyWindow(WindowPlan(begins_after_s=begins_s, window_s=1e4, race=race))
            replay(run, watch)
            end_s = watch.window_end_s
            if watch.ended_early is not None and end_s is not None and end_s < run.window_end_s:
                ended[trial.number] = end_s
                continue
        if result is not None and result.ended_early is None:
            found = rival_of(trial.number, run, result.metrics, 0.0)
            if found is not None:
                rivals[trial.number] = found
                kept.append(trial)
    return kept, ended


def _miss(spec: StudySpec, trial: TrialRow) -> float:
    assert trial.measurement is not None
    return max(s.violation(trial.measurement.metrics[s.metric]) for s in spec.slos)


def costs(of: Studied, trial: TrialRow) -> list[float]:
    """Return the logs of the objectives' values."""
    assert trial.measurement is not None
    return [math.log(trial.measurement.metrics[o.metric]) for o in of.spec.objectives]


def volume(of: Studied, trials: Sequence[TrialRow]) -> float:
    """Return the hypervolume of a front, up to the default's energy and the SLO."""
    bound = next(s.bound for s in of.spec.slos if s.metric == of.spec.objectives[1].metric)
    reference = [costs(of, of.trials[0])[0] + _ROOM, math.log(bound)]
    front = front_of(trials, of.spec.slos, of.spec.objectives)
    return hypervolume([costs(of, t) for t in front], reference)


def print_study(scenario: Scenario, seed: int, trials: int, folder: Path) -> None:
    of = study(scenario, seed, trials, folder)
    kept, ended = race_again(of)
    whole = [t for t in of.trials if t.measurement and t.measurement.ended_early is None]
    load_s = sum(run.window_end_s for run in of.runs.values())
    saved_s = sum(of.runs[n].window_end_s - end_s for n, end_s in ended.items())
    front = front_of(whole, of.spec.slos, of.spec.objectives)
    met = [costs(of, t) for t in kept if meets_slo(t, of.spec.slos)]
    by = [
        min(max(b - a for a, b in zip(costs(of, t), other, strict=True)) for other in met)
        for t in front
        if t.number in ended
    ]
    share = volume(of, kept) / volume(of, whole)
    print(
        f"{scenario.name:19}{seed:5}{load_s:8.0f} s{saved_s / load_s:8.0%}"
        f"{saved_s / of.spent_s:8.0%}{len(ended):7}{len(by):7}"
        f"{f'{max(by):.1%}' if by else '':>7}{share:9.2%}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--vllm", help="a vLLM for CPUs, to race on instead of the emulator")
    parser.add_argument("--keep", type=Path, help="keep the studies in this folder")
    asked = parser.parse_args()
    print(
        f"{'study':19}{'seed':>5}{'load':>10}{'saved':>8}{'of all':>8}{'ended':>7}{'false':>7}"
        f"{'by':>7}{'volume':>9}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        scenarios = [on_cpu(asked.vllm, folder)] if asked.vllm else SCENARIOS[:4]
        for scenario in scenarios:
            if asked.only in (None, scenario.name):
                for seed in range(1, asked.seeds + 1):
                    print_study(scenario, seed, asked.trials, folder)


if __name__ == "__main__":
    main()
