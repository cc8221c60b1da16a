"""`tuner run` and `tuner resume`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.console import stderr_console, stdout_console
from tuner.commands.shared.help_sections import RunHelp
from tuner.commands.shared.option_groups import with_option_groups
from tuner.commands.shared.options import (
    Format,
    MetricsFile,
    MetricsHost,
    MetricsPort,
    Mlflow,
    Name,
    Notify,
    Output,
    StoreUrl,
    Wandb,
    Yes,
)
from tuner.commands.shared.output import print_json, print_text, store_option
from tuner.commands.shared.settings_group import settings_of
from tuner.commands.shared.spec_options import StudyOptions
from tuner.commands.shared.watched import watched
from tuner.errors import NoFeasibleConfigurationError

if TYPE_CHECKING:
    from tuner import StudyResults

app = typer.Typer()


class RunFormat(StrEnum):
    """Formats of the result, and of the job that gives the run to a cluster instead."""

    TABLE = "table"
    JSON = "json"
    SBATCH = "sbatch"
    K8S_JOB = "k8s-job"

    @property
    def is_job(self) -> bool:
        """Whether nothing runs here."""
        return self in (RunFormat.SBATCH, RunFormat.K8S_JOB)


RunOutput = Annotated[
    RunFormat,
    typer.Option(
        "--format",
        help="Format of the result; sbatch and k8s-job run nothing, and write the job for Slurm or "
        "Kubernetes that does.",
    ),
]
LOOPBACK = "127.0.0.1"


@app.command(cls=RunHelp)
@with_option_groups
def run(
    context: typer.Context,
    options: StudyOptions,
    study_file: Annotated[
        Path | None, typer.Argument(help="STUDY.yaml with any of the options below.")
    ] = None,
    store_url: StoreUrl = DEFAULT_STORE,
    from_study: Annotated[
        str | None,
        typer.Option(
            help="Start with the best points of this older study; without a STUDY.yaml, its "
            "options are the defaults."
        ),
    ] = None,
    readable_by: Annotated[
        str | None,
        typer.Option(help="A group that may read the results; else only this user may."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what the run would do, and when it ends.")
    ] = False,
    notify: Notify = None,
    metrics_file: MetricsFile = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
    mlflow: Mlflow = None,
    wandb: Wandb = None,
    yes: Yes = False,
    output: RunOutput = RunFormat.TABLE,
) -> None:
    """Run a study: find the configurations of least energy that meet the SLO.

    Example: tuner run --model meta-llama/Llama-3.1-8B-Instruct --workload chat --space power
    --slo 'p99_tpot_ms<=50' --hours 8
    """
    import tuner
    from tuner.api.runs import (
        job_text,
        log_folder,
        publishing,
        require_group,
        require_store,
        require_targets,
        require_trackers,
        track,
    )
    from tuner.report.terminal.preview.preview_table import (
        PreviewListener,
        preview_json,
        show_preview,
    )
    from tuner.report.terminal.progress import RunDisplay

    like = from_study if study_file is None else None
    given, of_file = options.given(), settings_of(context).of_file("run")
    defaults = {name: given.pop(name) for name in of_file & given.keys()}
    spec = tuner.study_spec(study_file, given, like=like, store=store_url, defaults=defaults)
    would = tuner.preview(spec, store=store_url)
    require_targets(notify or ())
    require_trackers(mlflow, wandb)
    if output.is_job:
        print_text(job_text(would, output))
        return
    require_group(readable_by, store_url)
    if dry_run:
        require_store(store_url, spec.study)
        now = datetime.now(UTC)
        if output is RunFormat.JSON:
            print_json(preview_json(would, now))
        else:
            show_preview(stdout_console(), would, now)
        return
    console, named = stderr_console(), store_option(store_url)
    logs = partial(log_folder, store_url)
    with _outliving_ray(spec.ray):
        with (
            RunDisplay(console, spec.slos, spec.objectives, named, logs=logs) as display,
            publishing(
                store_url, display.note, file=metrics_file, port=metrics_port, host=metrics_host
            ) as metrics,
        ):
            study = tuner.run(
                spec,
                store=store_url,
                listeners=[PreviewListener(console, would), display, *metrics],
                from_study=from_study,
                readable_by=readable_by,
                yes=yes,
                notify=notify or (),
            )
        track(study, display.note, mlflow=mlflow, wandb=wandb)
        _finish(study, as_json=output is RunFormat.JSON)


@app.command(cls=RunHelp)
def resume(
    name: Name = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Additional trials.")] = None,
    hours: Annotated[float | None, typer.Option(help="Additional hours.")] = None,
    confirm: Annotated[
        bool | None,
        typer.Option(
            "--confirm/--no-confirm", help="Measure the front again (default: as in the run)."
        ),
    ] = None,
    checks: Annotated[
        bool | None,
        typer.Option(
            "--checks/--no-checks",
            help="Check what is recommended (default: as in the run); with --no-confirm what is "
            "confirmed by now.",
        ),
    ] = None,
    loads: Annotated[
        str | None,
        typer.Option(help="Operating points for `tuner plan`, e.g. 0.25x,0.5x,0.75x,1x."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the same model, if it lies elsewhere than in the run."),
    ] = None,
    vllm: Annotated[
        str | None, typer.Option(help="The vllm executable, if it lies elsewhere than in the run.")
    ] = None,
    cards: Annotated[
        str | None,
        typer.Option(help="Go on with so many cards (default: as in the run).", metavar="N|all"),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="`all` is short for --cards all; N as in the run.", metavar="N|all"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Go on with the Ray cluster at this address; none: with this host.",
            metavar="ADDRESS|none",
        ),
    ] = None,
    notify: Notify = None,
    metrics_file: MetricsFile = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
    mlflow: Mlflow = None,
    wandb: Wandb = None,
    yes: Yes = False,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Resume an interrupted study to the end of its budget, or extend it, and confirm the front.

    The store is enough: the search space, the workload and its trace are in it.

    Example: tuner resume my-study --hours 4
    """
    import tuner
    from tuner.api.runs import log_folder, publishing, require_trackers, track
    from tuner.api.studies import named_study
    from tuner.report.terminal.progress import RunDisplay

    require_trackers(mlflow, wandb)
    name = named_study(name, store_url)
    before = tuner.load_study(name, store_url)
    console, named = stderr_console(), store_option(store_url)
    logs = partial(log_folder, store_url)
    known = before.rows if console.is_terminal else ()  # a log shows no front
    slos, objectives = before.spec.slos, before.spec.objectives
    with _outliving_ray(before.spec.ray if ray is None else ray):
        with (
            RunDisplay(console, slos, objectives, named, known, logs) as display,
            publishing(
                store_url, display.note, file=metrics_file, port=metrics_port, host=metrics_host
            ) as metrics,
        ):
            study = tuner.resume(
                name,
                store=store_url,
                listeners=[display, *metrics],
                trials=trials,
                hours=hours,
                confirm=confirm,
                checks=checks,
                loads=loads,
                yes=yes,
                notify=notify or (),
                model=None if model is None else str(model),
                vllm=vllm,
                cards=cards,
                gpus=gpus,
                ray=ray,
            )
        track(study, display.note, mlflow=mlflow, wandb=wandb)
        _finish(study, as_json=output is Format.JSON)


def _outliving_ray(address: str | None) -> AbstractContextManager[None]:
    """Let a run on a Ray cluster end with a sentence even where Ray ends its process."""
    if address in (None, "none"):
        return nullcontext()
    return watched(
        f"Ray ended this run: the head of the cluster at {address} is lost, or this host's node "
        "of it; start the cluster again, then resume the study"
    )


def _finish(study: StudyResults, *, as_json: bool) -> None:
    """Print the front; raises `NoFeasibleConfigurationError` if there is none."""
    from tuner.report.json_forms import front_json
    from tuner.report.terminal.front_table import show_front

    found = study.confirmed_front
    if as_json:
        print_json(front_json(found))
    else:
        show_front(stdout_console(), found)
    if not found.front:
        raise NoFeasibleConfigurationError(study.why_nothing_met())
