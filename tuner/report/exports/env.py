"""A configuration as variables for a POSIX shell."""

from __future__ import annotations

import shlex

from tuner.report.exports.deployment import Deployment, comments, plain
from tuner.report.exports.vllm import withheld_notes


def env_file(deployment: Deployment) -> str:
    """Return lines that `. ./FILE` reads: the server's variables, and its command line."""
    variables = {
        **deployment.environment,
        "SERVE_ARGUMENTS": shlex.join(deployment.words),
    }
    undo = []
    if deployment.power_limit_w is not None:
        variables["GPU_POWER_LIMIT_W"] = plain(deployment.power_limit_w)
        undo.append(
            "for each GPU N, as root, before: nvidia-smi -i N -pl $GPU_POWER_LIMIT_W"
            " (undo: -pl with the limit that nvidia-smi -q -d POWER showed before)"
        )
    if deployment.sm_clock_mhz is not None:
        variables["GPU_SM_CLOCK_MHZ"] = plain(deployment.sm_clock_mhz)
        undo.append(
            "for each GPU N, as root, before: nvidia-smi -i N"
            " -lgc $GPU_SM_CLOCK_MHZ,$GPU_SM_CLOCK_MHZ (undo: nvidia-smi -i N -rgc)"
        )
    notes = (
        *deployment.about,
        *withheld_notes(deployment),
        'use: set -a; . ./THIS_FILE; set +a; eval "exec vllm serve $SERVE_ARGUMENTS"',
        f"undo: unset {' '.join(variables)}",
        *undo,
    )
    return comments(notes) + "".join(f"{n}={shlex.quote(v)}\n" for n, v in variables.items())
