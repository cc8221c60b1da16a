"""`tuner plan`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.completion import complete_study
from tuner.commands.shared.console import stderr_console, stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json
from tuner.errors import UsageError

app = typer.Typer()

_FORMATS = "curve, prometheus, azure, burstgpt or mooncake"
_ROUTINGS = "least-busy, round-robin, consolidate, by-length or by-answer"


@app.command()
def plan(
    load: Annotated[
        list[Path],
        typer.Option(
            help=f"The load of a day: {_FORMATS}. Repeated with a --study each: several tasks."
        ),
    ],
    gpus: Annotated[int, typer.Option(min=1, max=4096, help="How many GPUs there are.")],
    study: Annotated[
        list[str] | None,
        typer.Option(
            help="A study with operating points (`tuner run --loads`); may be repeated, for one "
            "load or with a --load each; default: the newest.",
            autocompletion=complete_study,
        ),
    ] = None,
    load_format: Annotated[
        str | None, typer.Option(help=f"{_FORMATS} (default: as the file looks).")
    ] = None,
    scale: Annotated[float, typer.Option(help="Multiply every rate.")] = 1.0,
    judge: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another day, to prove the plan on; once for each --load (default: --load, drawn "
            "anew)."
        ),
    ] = None,
    step_s: Annotated[
        float, typer.Option("--step", min=1.0, help="Length of an interval, s.")
    ] = 300.0,
    dwell_s: Annotated[
        float, typer.Option("--dwell", min=0.0, help="Least time between two changes, s.")
    ] = 600.0,
    reserve: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=10.0,
            help="Capacity beyond the highest load nearby, a share (default: 0.15, or what a "
            "better fleet that stays as it is has).",
        ),
    ] = None,
    routing: Annotated[
        str | None, typer.Option(help=f"{_ROUTINGS} (default: the best of them in simulation).")
    ] = None,
    power_budget: Annotated[
        str | None,
        typer.Option(help="For all GPUs, e.g. 5kW: serve as much as can be under it."),
    ] = None,
    simulate: Annotated[
        int,
        typer.Option(min=0, help="Requests to simulate for a proof, about; 0 proves nothing."),
    ] = 60_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated arrivals.")] = 0,
    allow_output_changes: Annotated[
        bool,
        typer.Option(
            "--allow-output-changes",
            help="Thinking, or the steps of pictures, may change by the hour.",
        ),
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page.")] = None,
    timers: Annotated[
        Path | None,
        typer.Option(help="Also write cron lines (FILE.cron) or systemd timers (a folder)."),
    ] = None,
    kubernetes: Annotated[
        Path | None,
        typer.Option(help="Also write Kubernetes CronJobs that scale Deployments."),
    ] = None,
    keda: Annotated[Path | None, typer.Option(help="Also write KEDA ScaledObjects.")] = None,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Plan a day: how many replicas of which configuration run at which hour, with least energy.

    The plan is proved on simulated requests; one that misses the SLO there is not given.

    Several tasks share the GPUs where --study and --load come in pairs.

    Example: tuner plan --study night --load day.csv --gpus 8 --html day.html
    """
    from tuner.api import plans
    from tuner.report.terminal.plan.plan_json import plan_json, tasks_json
    from tuner.report.terminal.plan.plan_table import show_plan
    from tuner.report.terminal.plan.tasks_table import show_tasks_plan

    console = stderr_console()
    request = plans.PlanRequest(
        studies=study or [plans.newest_study(store_url)],
        loads=load,
        gpus=gpus,
        load_format=plans.day_format(load_format),
        scale=_positive("--scale", scale),
        judges=judge or (),
        step_s=step_s,
        dwell_s=dwell_s,
        reserve=reserve,
        routing=plans.routing_named(routing),
        power_budget_w=None if power_budget is None else _watts(power_budget),
        simulated=simulate,
        seed=seed,
        note=lambda text: console.print(text, highlight=False, soft_wrap=True),
        mixes_answers=allow_output_changes,
    )
    made = plans.operating_plan if len(load) == 1 else plans.tasks_plan
    found: plans.ProvedPlan | plans.TasksPlan = made(request, store_url)
    written = plans.write_plan_files(
        found, html=html, timers=timers, kubernetes=kubernetes, keda=keda
    )
    for path in written:
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if isinstance(found, plans.TasksPlan):
        if output is Format.JSON:
            print_json(tasks_json(found))
        else:
            show_tasks_plan(stdout_console(), found)
    elif output is Format.JSON:
        print_json(plan_json(found))
    else:
        show_plan(stdout_console(), found)


def _positive(option: str, value: float) -> float:
    if not 0.0 < value < float("inf"):
        raise UsageError(f"{option} {value:g}: it must be greater than 0")
    return value


def _watts(text: str) -> float:
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(k?)W?\s*", text, re.IGNORECASE)
    if found is None:
        raise UsageError(f"--power-budget '{text}': write a power like 5kW or 5000W")
    return _positive("--power-budget", float(found[1]) * (1000.0 if found[2] else 1.0))
