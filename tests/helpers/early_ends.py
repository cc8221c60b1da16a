"""Loads that a watch may end early, and the same ones to the end of their window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from helpers.virtual_loads import workload
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.virtual import simulate
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import EarlyEnd, Failure, Load, RawRun, Request
from tuner.slo import Slo, meets_all

PLAN = WindowPlan(window_s=120.0, warmup_limit_s=180.0)
# neither an SLO nor a growing queue ends this one
NEVER = replace(PLAN, watches_backlog=False)


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """A load, how long it took, and why it was ended early."""

    run: RawRun
    seconds: float
    ended_early: EarlyEnd | None


def offered(seed: int, bursts: bool) -> Iterator[Request]:
    """Yield chat requests; in bursts, the arrivals are more than twice as uneven as Poisson's."""
    chat = workload("chat", seed)
    if not bursts:
        yield from chat.requests()
        return
    rng = np.random.default_rng(seed)
    now_s = 0.0
    for request in chat.requests():
        now_s += float(rng.gamma(0.2, 5.0))
        yield replace(request, arrival_s=now_s)


def run_once(
    configuration: Configuration, load: Load, plan: WindowPlan, seed: int, *, bursts: bool = False
) -> Ran:
    """Run a load on an 8B model on one H100."""
    watch = SteadyWindow(plan)
    gpu, model = load_gpu("H100-SXM"), load_model("meta-llama/Llama-3.1-8B-Instruct")
    requests = offered(seed, bursts)
    run = simulate(model, gpu, configuration, requests, load, watch, seed=seed)
    return Ran(run, run.window_end_s, watch.ended_early)


def good(run: RawRun, slos: tuple[Slo, ...]) -> bool:
    """Say whether a whole window met every SLO."""
    result = reduce_run(replace(run, ended_early=None), {})
    return not isinstance(result, Failure) and meets_all(result.metrics, slos)
