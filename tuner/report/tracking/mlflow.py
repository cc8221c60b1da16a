"""A study in MLflow: a run of the study, and below it one of each trial."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tuner.errors import UsageError
from tuner.report.study_results import StudyResults
from tuner.report.tracking.tracked import TrackedRun, summary_run, trial_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MOST_VALUE, _MOST_PARAMS = 500, 100  # of MLflow's API: characters of a value, params at once


def require_mlflow() -> None:
    """Raise `UsageError` if MLflow's client is not installed."""
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise UsageError("--mlflow needs MLflow's client: pip install mlflow-skinny") from None


def track_in_mlflow(study: StudyResults, uri: str) -> None:
    """Write the study to the tracking server of `uri`; what is there already is not repeated.

    The experiment is `tuner`. Raises what MLflow does.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tuner")
    place = client.create_experiment("tuner") if experiment is None else experiment.experiment_id
    known = _known(client, place, study)
    parent = known.get(None) or _create(client, place, summary_run(study), None)
    _log(client, parent, summary_run(study), step=len(study.rows), with_params=None not in known)
    for run in trial_runs(study):
        if run.number not in known:
            made = _create(client, place, run, parent)
            _log(client, made, run, step=0, with_params=True)
            status = "FAILED" if run.is_failed else "FINISHED"
            client.set_terminated(made, status, _ms(run.ended_at))
    client.set_terminated(parent, "FINISHED", _ms(study.identity.finished_at))


def _known(client: MlflowClient, place: str, study: StudyResults) -> dict[int | None, str]:
    """Return the runs of this study that are there, by trial; the study's own is at None."""
    created = study.identity.created_at.isoformat()
    found: dict[int | None, str] = {}
    token: str | None = None
    while True:
        page: Any = client.search_runs(
            [place], f"tags.`tuner_created` = '{created}'", max_results=1000, page_token=token
        )
        for run in page:
            number = run.data.tags.get("tuner_trial")
            found[None if number is None else int(number)] = run.info.run_id
        token = page.token
        if not token:
            return found


def _create(client: MlflowClient, place: str, run: TrackedRun, parent: str | None) -> str:
    above = {} if parent is None else {"mlflow.parentRunId": parent}
    made: Any = client.create_run(
        place,
        start_time=_ms(run.started_at),
        run_name=run.name,
        tags={name: text[:_MOST_VALUE] for name, text in (dict(run.tags) | above).items()},
    )
    return str(made.info.run_id)


def _log(
    client: MlflowClient, run_id: str, run: TrackedRun, *, step: int, with_params: bool
) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, value in run.metrics.items()]
    given = run.params.items() if with_params else ()
    params = [Param(name, text[:_MOST_VALUE]) for name, text in given][:_MOST_PARAMS]
    client.log_batch(run_id, metrics=metrics, params=params)


def _ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1000)
