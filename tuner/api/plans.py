"""Operating plans: how many replicas of which configuration at which hour, proved in simulation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuner import DEFAULT_STORE
from tuner.analysis.plan.plan_request import PlanRequest
from tuner.analysis.plan.proved_plan import ProvedPlan
from tuner.analysis.plan.proved_plan import proved_plan as plan_from
from tuner.analysis.plan.tasks_plan import TasksPlan
from tuner.analysis.plan.tasks_plan import tasks_plan as tasks_plan_from
from tuner.emulator.fleet.routing import Routing
from tuner.errors import UsageError, unknown_name
from tuner.load.day.read import DayFormat
from tuner.store import Store

__all__ = [
    "DayFormat",
    "PlanRequest",
    "ProvedPlan",
    "Routing",
    "TasksPlan",
    "day_format",
    "newest_study",
    "operating_plan",
    "routing_named",
    "tasks_plan",
    "write_plan_files",
]


def newest_study(store: str = DEFAULT_STORE) -> str:
    """Return the name of the newest study of a store. Raises `UsageError` if it holds none."""
    with Store.open(store, create=False) as opened:
        studies = opened.identities()
    if not studies:
        raise UsageError(
            "the store holds no study yet; start one with `tuner run --loads 0.25x,1x`"
        )
    return studies[-1].name


def day_format(name: str | None) -> DayFormat | None:
    """Return a format of `--load` by name. Raises `UsageError`."""
    if name is None or name in set(DayFormat):
        return None if name is None else DayFormat(name)
    raise UsageError(unknown_name("format", name, DayFormat))


def routing_named(name: str | None) -> Routing | None:
    """Return a router by name. Raises `UsageError`."""
    if name is None or name in set(Routing):
        return None if name is None else Routing(name)
    raise UsageError(unknown_name("router", name, Routing))


def operating_plan(request: PlanRequest, store: str = DEFAULT_STORE) -> ProvedPlan:
    """Return the plan of least energy for one load that keeps the SLO in simulation.

    Raises `UsageError` for a load that is no load or beyond the capacity, and for a study without
    operating points; `NoFeasibleConfigurationError` if no plan held the SLO in simulation.

    Example: `operating_plan(PlanRequest(studies=["night"], loads=[Path("day.csv")], gpus=8))`
    """
    with Store.open(store, create=False) as opened:
        return plan_from(opened, request)


def tasks_plan(request: PlanRequest, store: str = DEFAULT_STORE) -> TasksPlan:
    """Return the plan for several loads, each with its own study, on the same GPUs.

    Replicas of their own for each task are compared with shared ones. Raises as `operating_plan`.
    """
    with Store.open(store, create=False) as opened:
        return tasks_plan_from(opened, request)


def write_plan_files(
    found: ProvedPlan | TasksPlan,
    *,
    html: Path | None = None,
    timers: Path | None = None,
    kubernetes: Path | None = None,
    keda: Path | None = None,
) -> Iterator[Path]:
    """Write a plan as a page, timers, CronJobs or KEDA's schedule; yield the paths."""
    from tuner.report.plan.kubernetes import write_keda, write_kubernetes
    from tuner.report.plan.page import write_page
    from tuner.report.plan.timers import write_timers

    parts = found.best.plans if isinstance(found, TasksPlan) else (found,)
    each = [part.plan for part in parts]
    if html is not None:
        yield write_page(found, html)
    if timers is not None:
        write_timers(each, timers)
        yield timers
    if kubernetes is not None:
        yield write_kubernetes(each, kubernetes)
    if keda is not None:
        yield write_keda(each, keda)
