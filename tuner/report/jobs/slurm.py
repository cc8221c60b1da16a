"""A study as a batch script for Slurm."""

from __future__ import annotations

import math

from tuner.report.jobs.job import GRACE_S, StudyJob

_SCRIPT = """\
#!/bin/bash
{directives}
#
# tuner: study {study}. Submit it with: sbatch THIS_FILE
# It is stopped {grace_min} minutes before its time is over, restores the GPUs, and is queued again.
# Then, and on any other start, it goes on with what the store has.
# adapt: --partition and --account; load the modules or the environment that has tuner and vllm.
# The node is taken whole: another job on it would spoil the measurements.
{notes}
set -u

# On a file system whose locks work on every node that the job may get; or a database:
# TUNER_STORE=postgresql://... (a password is better kept in ~/.config/tuner/config.toml)
export TUNER_STORE="${{TUNER_STORE:-$SLURM_SUBMIT_DIR/results/{study}.db}}"
# What was changed on the GPUs of a node is noted on that node.
export TUNER_STATE_DIR="${{TUNER_STATE_DIR:-/var/tmp/tuner-$(id -u)}}"

study_file="$SLURM_SUBMIT_DIR/{study}.yaml"
cat >"$study_file" <<'STUDY_YAML'
{spec}STUDY_YAML

if tuner show {study} --format json >/dev/null 2>&1; then
    tuner resume {study} &
else
    tuner run "$study_file" &
fi
tuner_pid=$!
trap 'kill -TERM "$tuner_pid"' TERM INT

# `wait` ends when a signal comes; the tuner then puts back what it has changed.
code=255
while kill -0 "$tuner_pid" 2>/dev/null; do
    wait "$tuner_pid"
    code=$?
done

if [ "$code" -eq 143 ] && [ -n "${{SLURM_JOB_ID:-}}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def sbatch_script(job: StudyJob) -> str:
    """Return a script for `sbatch FILE`."""
    minutes = math.ceil(job.lasts_s / 60.0)
    gpus = [] if job.is_emulated else [f"--gpus-per-node={'8' if job.gpus is None else job.gpus}"]
    directives = (
        f"--job-name=tuner-{job.label}",
        "--nodes=1",
        "--ntasks=1",
        *gpus,
        "--exclusive",
        f"--time={minutes // 60}:{minutes % 60:02d}:00",
        f"--signal=B:TERM@{GRACE_S}",
        "--requeue",
        "--open-mode=append",
        f"--output=tuner-{job.label}-%j.log",
    )
    return _SCRIPT.format(
        directives="\n".join(f"#SBATCH {word}" for word in directives),
        study=job.study,
        grace_min=GRACE_S // 60,
        notes="\n".join(f"# {line}" for line in (*_files(job), *_limits(job))),
        spec=job.spec_text,
    )


def _files(job: StudyJob) -> tuple[str, ...]:
    return tuple(f"it needs on its node: {path}" for path in job.files)


def _limits(job: StudyJob) -> tuple[str, ...]:
    if not job.sets_limits:
        return ("It changes no setting of a GPU.",)
    return (
        "It sets limits of GPUs, which takes root. A job has none: let a zeusd run on the nodes,",
        "and name its socket in ZEUSD_SOCK_PATH, or choose a space without device knobs.",
    )
