"""A configuration as the text of a file for `vllm serve --config FILE`."""

from __future__ import annotations

import shlex

from tuner.configuration import Value
from tuner.report.exports.deployment import Deployment, comments, plain
from tuner.report.exports.yaml_text import yaml_text


def vllm_config(deployment: Deployment) -> str:
    """Return YAML with the model and every flag; what YAML cannot set is in its comments."""
    notes = (
        *deployment.about,
        f"use: vllm serve {'--omni ' if deployment.is_omni else ''}--config THIS_FILE.yaml",
        *withheld_notes(deployment),
    )
    commands = [*_environment(deployment), *_device(deployment)]
    settings: dict[str, Value] = {"model": deployment.model}
    for name, value in deployment.flags.items():
        settings.update([_setting(name, value)])
    return comments(notes) + "".join(f"# {c}\n" for c in commands) + yaml_text(settings)


def withheld_notes(deployment: Deployment) -> tuple[str, ...]:
    """Return which values are left out because they look like secrets."""
    if not deployment.withheld:
        return ()
    return (f"left out because they look like secrets: {', '.join(deployment.withheld)}",)


def _setting(name: str, value: Value) -> tuple[str, Value]:
    """Return one line; vLLM drops `flag: false`, so that becomes `no-flag: true`."""
    flag, dot, field = name.partition(".")
    flag = flag.replace("_", "-")
    if dot:  # a bare true would be a flag without a value
        return f"{flag}.{field}", str(value).lower() if isinstance(value, bool) else value
    return (f"no-{flag}", True) if value is False else (flag, value)


def _environment(deployment: Deployment) -> list[str]:
    lines = ["before starting:"] if deployment.environment else []
    for name, text in deployment.environment.items():
        lines += f"  export {name}={shlex.quote(text)}".splitlines()
    return lines


def _device(deployment: Deployment) -> list[str]:
    """Return the commands that set the limits, and those that undo it."""
    lines = []
    if deployment.power_limit_w is not None:
        lines += [
            "for each GPU N of the server, as root (note the limit before: nvidia-smi -q -d POWER)",
            f"  nvidia-smi -i N -pl {plain(deployment.power_limit_w)}",
            "  undo: nvidia-smi -i N -pl LIMIT_BEFORE",
        ]
    if deployment.sm_clock_mhz is not None:
        clock = deployment.sm_clock_mhz
        lines += [
            "for each GPU N of the server, as root",
            f"  nvidia-smi -i N -lgc {clock},{clock}",
            "  undo: nvidia-smi -i N -rgc",
        ]
    return lines
