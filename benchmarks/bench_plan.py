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
from tuner.analysis.plan.operating_plan import PlanOptions, make_plan
from tuner.analysis.plan.operating_points import replica_types
from tuner.analysis.plan.plan_request import PlanRequest
from tuner.analysis.plan.pools import task_pool
from tuner.analysis.plan.proved_plan import ProvedPlan, proved_together
from tuner.analysis.plan.simulation.proof import Proof, prove, prove_constant
from tuner.emulator.fleet.routing import Routing
from tuner.errors import TunerError
from tuner.load.day.rate_curve import RateCurve
from tuner.records import FloatArray
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

    found: ProvedPlan  # by day 1
    ours: Proof
    static: Proof
    all_on: Proof

    @property
    def fixed(self) -> Proof:
        """The fixed fleet that used less, of those that kept the SLO if one did."""
        known = [self.static, self.all_on]
        return min([one for one in known if one.holds] or known, key=lambda one: one.energy_j)

    @property
    def saved(self) -> float:
        """What the plan saved of it."""
        return 1.0 - self.ours.energy_j / self.fixed.energy_j


def judged(
    service: Service, store: str, requests: int, routing: Routing | None, reserve: float | None
) -> Judged:
    """Plan day 1 as `tuner plan` does, and judge the plan once on day 2."""
    study = study_of(service, store)
    with Store.open(store, create=False) as opened:
        types = replica_types(opened, study)
        peak = PEAK_SHARE * GPUS * max(t.capacity / t.gpus for t in types)
        first, second = (synthetic_day(service, peak, day) for day in (1, 2))
        pool = task_pool(
            opened, [study], first, first, simulated=requests, seed=1, mixes_answers=False
        )
    request = PlanRequest(
        studies=[study],
        loads=[],
        gpus=GPUS,
        routing=routing,
        simulated=requests,
        reserve=reserve,
        note=lambda text: print(f"{service.name}: {text}"),
    )
    (found,) = proved_together([pool], request)
    plan = found.plan
    assert plan.static is not None and found.proof is not None and pool.scene is not None
    unseen, router = replace(pool.scene, seed=2), found.proof.routing
    return Judged(
        found,
        prove(plan, unseen, [second], router),
        prove_constant(plan, plan.static, unseen, [second], router),
        prove_constant(plan, plan.all_on, unseen, [second], router),
    )


def show(service: Service, one: Judged, took_s: float) -> bool:
    """Print a plan's figures; return whether it saved and attained as much as wanted."""
    ours, proof = one.ours, one.found.proof
    assert proof is not None
    print(f"{service.name}: {one.saved:.1%} less than the best fixed fleet; {took_s:.0f} s")
    for name, day in (("plan", ours), ("best static", one.static), ("all on", one.all_on)):
        print(f"    {name:12} {_text(day)}")
    print(
        f"    router {ours.routing}, reserve {one.found.plan.options.reserve:.0%}, "
        f"{ours.requests} requests; on its own day {_text(proof)}"
    )
    for router in sorted(one.found.routings, key=lambda r: r.energy_j):
        task = router.weakest
        print(
            f"    {router.routing:12} {_text(router)}, p50 TTFT {task.p50_ttft_ms:.0f} ms, p99 "
            f"TTFT {task.p99_ttft_ms:.0f} ms, p99 TPOT {task.p99_tpot_ms:.1f} ms"
        )
    for note in one.found.notes:
        print(f"    note: {note}")
    return one.saved >= SAVED and ours.worst.attainment >= ATTAINED


def _text(proof: Proof) -> str:
    return f"{proof.energy_j / 3.6e6:6.1f} kWh, worst hour {proof.worst.attainment:.2%}"


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
    parser.add_argument("--reserve", type=float, help="instead of what a plan begins with")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    store = str(asked.folder / "plan.db")
    held = []
    for service in SERVICES:
        if asked.only and service.name not in asked.only:
            continue
        began_s = time.monotonic()
        try:
            found = judged(service, store, asked.requests, asked.routing, asked.reserve)
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
