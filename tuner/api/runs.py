"""Runs from Python: run, resume and measure; `tuner` exports them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner import DEFAULT_STORE
from tuner.catalog.yaml_files import read_mapping
from tuner.configuration import Configuration, Value
from tuner.errors import UsageError
from tuner.evaluation.measure_once import MeasuredOnce, measure_once
from tuner.host.signals import run_interruptible
from tuner.load.workload import load_workload
from tuner.measurement.listener import NOBODY, LoadListener
from tuner.report.jobs import job as jobs
from tuner.report.metrics.publisher import MetricsPublisher
from tuner.report.notify.notifier import Notifier
from tuner.report.notify.target import target
from tuner.report.study_results import StudyResults, load_study
from tuner.report.tracking.mlflow import require_mlflow, track_in_mlflow
from tuner.report.tracking.wandb import require_wandb, track_in_wandb
from tuner.spec.settings import configuration_of
from tuner.spec.study import StudySpec, spec_from
from tuner.store import Store
from tuner.store.address import file_of, parse_address
from tuner.study.inputs.moved import MovedTo
from tuner.study.listener import Broadcast, Listener
from tuner.study.preview import run_preview
from tuner.study.preview.run_preview import RunPreview
from tuner.study.proposals.start_points import asked_like
from tuner.study.run import (
    check_names,
    require_free_name,
    resume_study,
    start_study,
    usual_name,
)
from tuner.study.run_files import log_folder, require_shareable, share_results

__all__ = [
    "aresume",
    "arun",
    "job_text",
    "log_folder",
    "measure",
    "preview",
    "publishing",
    "require_group",
    "require_store",
    "require_targets",
    "require_trackers",
    "resume",
    "run",
    "study_spec",
    "track",
]


_LOADS = {"request_rate", "concurrency"}  # one excludes the other


def study_spec(
    path: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    like: str | None = None,
    store: str = DEFAULT_STORE,
    defaults: Mapping[str, Any] | None = None,
) -> StudySpec:
    """Return the spec of a STUDY.yaml, with `options` over it.

    `like` names an older study in `store`, whose options are the defaults. `defaults` are used for
    what none of them says.
    Raises `UsageError`.

    Example: `tuner.study_spec("night.yaml", {"hours": 2})`
    """
    said = dict(options or {})
    if like is not None:
        with Store.open(store, create=False) as opened:
            said = asked_like(opened.study(like), said)
    file = None if path is None else Path(path)
    known = {*said} if file is None or not defaults else {*said, *read_mapping(file)}
    if known & _LOADS:
        known |= _LOADS
    weaker = {name: value for name, value in (defaults or {}).items() if name not in known}
    return spec_from(file, weaker | said)


def require_targets(notify: Sequence[str]) -> None:
    """Raise `UsageError` if one of `notify` can be neither a webhook nor a command here."""
    for text in notify:
        target(text)


def require_store(store: str, study: str | None) -> None:
    """Check that a new study may be stored, of this name if it has one; makes no file.

    Whether a database server can be used is seen by the run. Raises as `run` does.
    """
    path = file_of(parse_address(store))
    if path is not None and path.exists() and (path.is_dir() or path.stat().st_size):
        with Store.open(store, create=False) as opened:
            if study is not None:
                require_free_name(study, opened)


def require_group(readable_by: str | None, store: str) -> None:
    """Check that a group may be given the store's results; changes nothing.

    Raises `UsageError` for one that this machine does not know, `PreflightError` for one that this
    user is not in.
    """
    if readable_by is not None:
        require_shareable(store, readable_by)


def require_trackers(mlflow: str | None, wandb: str | None) -> None:
    """Raise `UsageError` if what `track` needs for them is not installed."""
    if mlflow is not None:
        require_mlflow()
    if wandb is not None:
        require_wandb()


def track(
    study: StudyResults,
    note: Callable[[str], None],
    *,
    mlflow: str | None = None,
    wandb: str | None = None,
) -> None:
    """Write a study to an MLflow server, a project of Weights & Biases, or both.

    A server that cannot be reached harms nothing: `note` is told, without its address.
    """
    for name, place, write in (
        ("MLflow", mlflow, track_in_mlflow),
        ("Weights & Biases", wandb, track_in_wandb),
    ):
        if place is not None:
            try:
                write(study, place)
            except Exception as error:  # noqa: BLE001 - of clients that raise anything
                note(f"the study was not written to {name}: {type(error).__name__}")


@contextmanager
def publishing(
    store: str,
    note: Callable[[str], None],
    *,
    file: Path | None = None,
    port: int | None = None,
    host: str = "127.0.0.1",
) -> Iterator[list[MetricsPublisher]]:
    """Publish what runs to a file or a port for Prometheus; yield the listener to give the run.

    `note` is told once if that does not work any more. Raises `UsageError` for a file in no folder,
    `PreflightError` for a port that cannot be opened.
    """
    if file is None and port is None:
        yield []
        return
    with MetricsPublisher(store, note, file=file, port=port, host=host) as publisher:
        yield [publisher]


def preview(spec: StudySpec, *, store: str = DEFAULT_STORE) -> RunPreview:
    """Return what a run of `spec` would do: knobs, windows, evaluations, when it ends.

    Nothing is started, stored or set. Raises `UsageError` as `run` does.

    Example: `tuner.preview(spec).evaluations`
    """
    check_names(spec)
    return run_preview.preview(spec, store)


def job_text(would: RunPreview, form: str) -> str:
    """Return what gives a run to a cluster: `sbatch`, a script, or `k8s-job`, objects.

    Nothing is started. Raises `UsageError` for a run on a Ray cluster.
    """
    workload = load_workload(would.spec.workload).name
    study = would.spec.study or usual_name(would.spec, workload)
    return jobs.job_text(form, jobs.study_job(would, study))


async def arun(
    spec: StudySpec,
    *,
    store: str = DEFAULT_STORE,
    listeners: Sequence[Listener] = (),
    from_study: str | None = None,
    readable_by: str | None = None,
    yes: bool = False,
) -> StudyResults:
    """Run a new study to the end of its budget, in a running event loop: for a notebook.

    `store` is a SQLite file, created if missing, or a database URL. With `from_study` the best
    configurations of that study are measured first. Only this user can read what is written, and
    the members of the group `readable_by`. On cancellation it stops what it started;
    `resume` continues the study. Raises the error tree of `tuner.errors`: `DoubtfulRequestError` if
    the default's measurement speaks against the SLOs or the load; `yes` goes on regardless.

    Example: `study = await tuner.arun(spec)`
    """
    if spec.trials is None and spec.hours is None:
        raise UsageError("no budget: give the spec `hours` or `trials`")
    check_names(spec)  # before a store is created for an invalid spec
    if readable_by is not None:
        share_results(store, readable_by)
    with Store.open(store, create=True) as opened:
        name = await start_study(spec, opened, Broadcast(listeners), from_study=from_study, yes=yes)
    return load_study(name, store)


def run(
    spec: StudySpec,
    *,
    store: str = DEFAULT_STORE,
    listeners: Sequence[Listener] = (),
    from_study: str | None = None,
    readable_by: str | None = None,
    yes: bool = False,
    notify: Sequence[str] = (),
) -> StudyResults:
    """Run a new study as `arun` does, from a script. Ctrl-C stops it cleanly.

    Each of `notify`, the URL of a webhook or a command, is told when the run ends.

    Example::

        spec = tuner.StudySpec(model="meta-llama/Llama-3.1-8B-Instruct", emulate="H100-SXM",
                               request_rate=4, slos=[tuner.Slo.parse("p99_tpot_ms<=25")], hours=8)
        study = tuner.run(spec, store="results/tuner.db")
    """
    with Notifier(notify, Broadcast(listeners).note) as notifier:
        running = arun(
            spec,
            store=store,
            listeners=[*listeners, notifier],
            from_study=from_study,
            readable_by=readable_by,
            yes=yes,
        )
        study = run_interruptible(running)
        notifier.finished(study)
    return study


async def aresume(
    name: str,
    *,
    store: str = DEFAULT_STORE,
    listeners: Sequence[Listener] = (),
    trials: int | None = None,
    hours: float | None = None,
    confirm: bool | None = None,
    checks: bool | None = None,
    loads: str | None = None,
    yes: bool = False,
    model: str | None = None,
    vllm: str | None = None,
    cards: str | int | None = None,
    gpus: str | int | None = None,
    ray: str | None = None,
) -> StudyResults:
    """Resume a study to the end of its budget, extended by `trials` or `hours` if given.

    For a running event loop, as in a notebook. `confirm` overrides whether the front is measured
    again, `checks` whether what is recommended is checked (without a confirmation: what is
    confirmed by now); None keeps the study's setting. `loads`, such as `0.25x,0.5x,1x`, adds
    operating points. `yes` goes on although the default's measurement speaks against the request.
    The store is enough: the search space, workload, trace and other files are in it. `model` is the
    folder of the same model, and `vllm` the executable, if they lie elsewhere now. `cards`, `gpus`
    and `ray` are as in a spec, for a study on several cards that goes on with others; `ray="none"`
    is this host. Raises `PreflightError` if the machine, server, model or search space has changed.

    Example: `study = await tuner.aresume("night", hours=4)`
    """
    with Store.open(store, create=False) as opened:
        await resume_study(
            name,
            opened,
            Broadcast(listeners),
            more_trials=trials,
            more_hours=hours,
            confirm=confirm,
            checks=checks,
            loads=loads,
            yes=yes,
            moved=MovedTo(model, vllm, cards, gpus, ray),
        )
    return load_study(name, store)


def resume(
    name: str,
    *,
    store: str = DEFAULT_STORE,
    listeners: Sequence[Listener] = (),
    trials: int | None = None,
    hours: float | None = None,
    confirm: bool | None = None,
    checks: bool | None = None,
    loads: str | None = None,
    yes: bool = False,
    model: str | None = None,
    vllm: str | None = None,
    cards: str | int | None = None,
    gpus: str | int | None = None,
    ray: str | None = None,
    notify: Sequence[str] = (),
) -> StudyResults:
    """Resume a study as `aresume` does, from a script. Ctrl-C stops it cleanly.

    `notify` is as for `run`.

    Example: `tuner.resume("night", hours=4)`
    """
    with Notifier(notify, Broadcast(listeners).note) as notifier:
        resuming = aresume(
            name,
            store=store,
            listeners=[*listeners, notifier],
            trials=trials,
            hours=hours,
            confirm=confirm,
            checks=checks,
            loads=loads,
            yes=yes,
            model=model,
            vllm=vllm,
            cards=cards,
            gpus=gpus,
            ray=ray,
        )
        study = run_interruptible(resuming)
        notifier.finished(study)
    return study


def measure(
    configuration: Configuration | Mapping[str, Value],
    spec: StudySpec,
    *,
    listener: LoadListener = NOBODY,
) -> MeasuredOnce:
    """Measure one configuration once, under the load and SLOs of `spec`; nothing is stored.

    A mapping gives each knob's value by name. Raises `PreflightError` with the reason if the
    configuration fails.

    Example: `tuner.measure({"max_num_seqs": 64}, spec).measurement.metrics`
    """
    if not isinstance(configuration, Configuration):
        configuration = configuration_of(configuration)
    return run_interruptible(measure_once(spec, configuration, listener))
