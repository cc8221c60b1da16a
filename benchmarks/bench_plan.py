"""Plans of three days, each made from one day and judged on another: `make bench-plan`.

The days are *synthetic*: Azure's traces of 2024 (github.com/Azure/AzurePublicDataset, 44 million
requests) are in no package. Of each service's weekdays the ratio of the highest to the lowest hour
and the deviation / mean of the hours are the published trace's: conversation 2.0 and 0.185, code
10.0 and 0.716. The shape between them, and the noise of days, hours and five minutes, are made up.
The third is a diurnal curve of a chat service. `tuner plan --load FILE --judge OTHER` does the same
with the files themselves.

The plan never sees the day that it is judged on: it is proved on other arrivals of its own day, and
judged once. The energy is emulated. About `--requests` are simulated for each proof.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import tuner
from tuner.analysis.plan.operating_plan import OperatingPlan, PlanOptions, make_plan
from tuner.analysis.plan.operating_points import replica_types
from tuner.analysis.plan.simulation.proof import Proof, prove, prove_constant
from tuner.analysis.plan.simulation.scene import Scene, Task
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.emulator.fleet.routing import Routing
from tuner.errors import TunerError
from tuner.load.day.rate_curve import RateCurve
from tuner.load.workload import load_workload
from tuner.records import FloatArray
from tuner.slo import Slo
from tuner.store import Store

GPUS = 8
STEP_S = 300.0
PEAK_SHARE = 0.75  # of what 8 GPUs take: the day is scaled to that
STUDY: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "emulate": "H100-SXM",
    "space": "power",
    "slo": ["p99_tpot_ms<=30", "p99_ttft_ms<=1000"],
    "trials": 12,
    "max_window_s": 40,
    "loads": "0.25x,0.5x,0.75x,1x",
}
SAVED, ATTAINED = 0.25, 0.99


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose days are planned: its workload, and the shape of its weekdays."""

    name: str
    workload: str
    rate: float  # at which its configuration is searched, requests/s
    peak_to_trough: float
    deviation: float  # of the hours, / their mean


SERVICES = (
    Service("conversation", "chat", 5.0, 2.0, 0.185),
    Service("code", "code", 5.0, 10.0, 0.716),
    Service("diurnal chat", "chat", 5.0, 5.0, 0.5),
)


def shape(service: Service) -> FloatArray:
    """Return 288 rates with a peak of 1: a cosine, to the power that gives the deviation."""
    hours = np.arange(288) / 12.0
    wave = 0.5 - 0.5 * np.cos(2.0 * np.pi * (hours - 3.0) / 24.0)
    trough = 1.0 / service.peak_to_trough
    powers = np.geomspace(0.1, 10.0, 400)
    days = trough + (1.0 - trough) * wave ** powers[:, None]
    deviations = days.std(axis=1) / days.mean(axis=1)
    return np.asarray(days[np.abs(deviations - service.deviation).argmin()], dtype=np.float64)


def synthetic_day(service: Service, peak: float, seed: int) -> RateCurve:
    """Return one day: its level, its hours and its five minutes differ from other days'."""
    rng = np.random.default_rng([seed, len(service.name)])
    level = 1.0 + 0.03 * float(rng.standard_normal())
    hourly = np.repeat(1.0 + 0.03 * rng.standard_normal(24), 12)
    noise = 1.0 + 0.03 * rng.standard_normal(288)
    rates = peak * shape(service) * level * hourly * noise
    return RateCurve(STEP_S, np.maximum(rates, 0.0), f"synthetic {service.name}, day {seed}")


def study_of(service: Service, store: str) -> str:
    """Run the study of a workload unless it is there; return its name."""
    name = f"plan-{service.workload}"
    known = {s.identity.name for s in tuner.list_studies(store)} if Path(store).exists() else set()
    if name not in known:
        asked = {**STUDY, "workload": service.workload, "request_rate": service.rate}
        spec = tuner.study_spec(None, {**asked, "study": name})
        tuner.run(spec, store=store, yes=True)
    return name


@dataclass(frozen=True, slots=True)
class Judged:
    """A plan made of day 1 alone, and what it and the fixed fleets did on day 2."""

    plan: OperatingPlan
    ours: Proof
    static: Proof
    all_on: Proof
    routers: tuple[Proof, ...]  # on day 1


def judged(service: Service, store: str, requests: int, routing: Routing | None) -> Judged:
    """Plan day 1, prove the plan on other arrivals of that day, and judge it once on day 2."""
    study = study_of(service, store)
    with Store.open(store, create=False) as opened:
        types = replica_types(opened, study)
    peak = PEAK_SHARE * GPUS * max(t.capacity / t.gpus for t in types)
    first, second = (synthetic_day(service, peak, day) for day in (1, 2))
    slos = tuple(map(Slo.parse, STUDY["slo"]))
    model, gpu = load_model(STUDY["model"]), load_gpu(STUDY["emulate"])
    task = Task(service.name, load_workload(service.workload), slos)
    scene = Scene(model, gpu, (task,), requests, seed=1)
    plan = make_plan(types, first, PlanOptions(gpus=GPUS))
    routers = () if routing else tuple(prove(plan, scene, [first], one) for one in Routing)
    holding = [one for one in routers if one.holds] or routers
    best = routing or min(holding, key=lambda one: one.energy_j).routing
    while not prove(plan, scene, [first], best).holds:
        reserve = plan.options.reserve + 0.1
        print(f"{service.name}: planned again with a reserve of {reserve:.0%}")
        plan = make_plan(types, first, PlanOptions(gpus=GPUS, reserve=reserve))
    assert plan.static is not None
    unseen = replace(scene, seed=2)
    return Judged(
        plan,
        prove(plan, unseen, [second], best),
        prove_constant(plan, plan.static, unseen, [second], best),
        prove_constant(plan, plan.all_on, unseen, [second], best),
        routers,
    )


def show(service: Service, found: Judged, took_s: float) -> bool:
    """Print a plan's figures; return whether it saved and attained as much as wanted."""
    ours, static, all_on = found.ours, found.static, found.all_on
    of_static, of_all = (1 - ours.energy_j / one.energy_j for one in (static, all_on))
    saved = min(of_static, of_all)  # the mix that is best on paper need not be in simulation
    print(
        f"{service.name:13} plan {ours.energy_j / 3.6e6:6.1f} kWh, best fixed fleet "
        f"{static.energy_j / 3.6e6:6.1f} ({of_static:.1%} less), all on "
        f"{all_on.energy_j / 3.6e6:6.1f} "
        f"({of_all:.1%} less); worst hour {ours.worst.attainment:.2%} (fixed: "
        f"{static.worst.attainment:.2%}); router {ours.routing}, reserve "
        f"{found.plan.options.reserve:.0%}; {ours.requests} requests, {took_s:.0f} s"
    )
    for one in sorted(found.routers, key=lambda r: r.energy_j):
        print(
            f"    {one.routing:12} {one.energy_j / 3.6e6:6.1f} kWh, worst hour "
            f"{one.worst.attainment:.2%}, p50 TTFT {one.weakest.p50_ttft_ms:.0f} ms, p99 TTFT "
            f"{one.weakest.p99_ttft_ms:.0f} ms, p99 TPOT {one.weakest.p99_tpot_ms:.1f} ms"
        )
    return saved >= SAVED and ours.worst.attainment >= ATTAINED


def week_of_64(store: str) -> None:
    """Plan a week of 64 GPUs at 5-minute steps, and print time and memory."""
    with Store.open(store, create=False) as opened:
        types = replica_types(opened, "plan-chat")
    peak = 0.65 * 64 * max(t.capacity / t.gpus for t in types)
    days = [synthetic_day(SERVICES[0], peak, day).rates for day in range(7)]
    curve = RateCurve(STEP_S, np.concatenate(days), "a synthetic week")
    began_s = time.process_time()
    plan = make_plan(types, curve, PlanOptions(gpus=64))
    took_s = time.process_time() - began_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000.0
    print(
        f"64 GPUs, a week, {plan.demand.intervals} intervals, {len(types)} configurations: "
        f"{took_s:.1f} s of CPU, {peak_mb:.0f} MB at most in this process; "
        f"{plan.saved or 0:.1%} less than the best fixed fleet; exact: {plan.is_exact}"
    )


def main() -> None:
    """Plan and judge each day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("results/bench-plan"))
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--only", nargs="*", choices=[s.name for s in SERVICES])
    parser.add_argument("--routing", type=Routing, help="compare no routers; takes half the time")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    store = str(asked.folder / "plan.db")
    held = []
    for service in SERVICES:
        if asked.only and service.name not in asked.only:
            continue
        began_s = time.monotonic()
        try:
            found = judged(service, store, asked.requests, asked.routing)
        except TunerError as error:
            print(f"{service.name}: {error}")
            held.append(False)
            continue
        held.append(show(service, found, time.monotonic() - began_s))
    if not asked.only:
        week_of_64(store)
    print(f"at least {SAVED:.0%} saved and {ATTAINED:.0%} in each hour: {sum(held)} of {len(held)}")


if __name__ == "__main__":
    main()
