"""A configuration as a recipe: JSON with the field names of vLLM's recipes (recipes.vllm.ai).

`model` and `hardware` can be pasted into a recipe's YAML; what those have no field for (the limits
of the GPU, what was measured, and whether it was) stands beside them.
"""

from __future__ import annotations

import json

from tuner.report.exports.deployment import Deployment, plain
from tuner.report.exports.vllm import withheld_notes


def recipe(deployment: Deployment) -> str:
    """Return one JSON object; each figure has its unit and its source, measured or emulated."""
    text = json.dumps(
        {
            "about": [*deployment.about, *withheld_notes(deployment), *_how(deployment)],
            "model": {
                "model_id": deployment.model,
                "min_vllm_version": deployment.release,
                "docker_image": deployment.image,
                "base_args": list(deployment.words[1:]),
                "base_env": dict(deployment.environment),
            },
            "hardware": {
                "gpu": deployment.gpu,
                "gpus": deployment.gpus,
                "power_limit_w": deployment.power_limit_w,
                "sm_clock_mhz": deployment.sm_clock_mhz,
            },
            "command": ["vllm", "serve", *deployment.words],
            "withheld": list(deployment.withheld),
            "figures": {
                figure.name: {
                    "value": figure.value,
                    "unit": figure.unit,
                    "source": figure.source.value,
                }
                for figure in deployment.figures
            },
        },
        indent=2,
        ensure_ascii=False,
        allow_nan=False,
    )
    return f"{text}\n"


def _how(deployment: Deployment) -> list[str]:
    """Return how to use it and how to undo it; JSON has no comments."""
    use = ["use: set base_env, then run the words of `command`"]
    undo = ["undo: stop the server"]
    if deployment.power_limit_w is not None:
        watts = plain(deployment.power_limit_w)
        use.append(f"for each GPU N, as root, before: nvidia-smi -i N -pl {watts}")
        undo.append("undo: nvidia-smi -i N -pl LIMIT_BEFORE (nvidia-smi -q -d POWER shows it)")
    if deployment.sm_clock_mhz is not None:
        clock = deployment.sm_clock_mhz
        use.append(f"for each GPU N, as root, before: nvidia-smi -i N -lgc {clock},{clock}")
        undo.append("undo: nvidia-smi -i N -rgc")
    return use + undo
