"""A study in Weights & Biases: one run, with a step for each trial."""

from __future__ import annotations

from tuner.errors import UsageError
from tuner.report.study_results import StudyResults
from tuner.report.tracking.tracked import summary_run, trial_runs


def require_wandb() -> None:
    """Raise `UsageError` if the client is not installed."""
    try:
        import wandb  # noqa: F401
    except ImportError:
        raise UsageError("--wandb needs its client: pip install wandb") from None


def track_in_wandb(study: StudyResults, project: str) -> None:
    """Write the study to a project; `WANDB_MODE=offline` keeps it on this machine.

    Raises what the client does.
    """
    import wandb

    whole = summary_run(study)
    run = wandb.init(
        project=project,
        name=whole.name,
        id=f"{study.name}-{study.identity.created_at:%Y%m%d%H%M%S}",
        resume="allow",
        config={**whole.tags, **{f"recommended.{n}": text for n, text in whole.params.items()}},
    )
    try:
        for trial in trial_runs(study):
            knobs = {f"knob.{name}": text for name, text in trial.params.items()}
            run.log({**trial.metrics, **knobs}, step=trial.number)
        run.summary.update({f"result.{name}": value for name, value in whole.metrics.items()})
    finally:
        run.finish()
