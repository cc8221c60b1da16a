"""A configuration as the text of a file for `vllm serve --config FILE`."""

from __future__ import annotations

import shlex

import yaml

from tuner.configuration import Configuration, Value
from tuner.report.recommend import Recommendation


def vllm_config(recommendation: Recommendation) -> str:
    """Return YAML with the model and every flag; what YAML cannot set is in its comments."""
    configuration = _with_fixed(recommendation)
    notes = [
        *_provenance(recommendation),
        *_environment(dict(configuration.environment)),
        *_device(dict(configuration.device)),
    ]
    comments = "".join(f"# {line}".rstrip() + "\n" for line in notes)
    settings: dict[str, Value] = {"model": recommendation.study.model}
    for name, value in configuration.flags.items():
        settings.update([_setting(name, value)])
    return comments + yaml.safe_dump(settings, sort_keys=False, width=10_000)


def _with_fixed(recommendation: Recommendation) -> Configuration:
    """Return the configuration with the settings that every configuration of the study shared."""
    best = recommendation.best.configuration
    fixed = Configuration.from_json(recommendation.study.spec_json.get("fixed", {}))
    return Configuration(
        flags={**fixed.flags, **best.flags},
        environment={**fixed.environment, **best.environment},
        device=best.device,
        load=best.load,
    )


def _setting(name: str, value: Value) -> tuple[str, Value]:
    """Return one line; vLLM drops `flag: false`, so that becomes `no-flag: true`."""
    flag = name.replace("_", "-")
    return (f"no-{flag}", True) if value is False else (flag, value)


def _provenance(recommendation: Recommendation) -> list[str]:
    study, best = recommendation.study, recommendation.best
    shown = recommendation.figures_of(best)
    label = " and ".join(recommendation.emulated)
    ended = "" if best.ended_at is None else f", {best.ended_at:%Y-%m-%d %H:%M} UTC"
    lines = [
        f"tuner: study {study.name}, trial {best.number}{ended}",
        f"{study.model}, workload {study.workload_name}, {study.gpu}, "
        f"driver {study.driver or 'unknown'}, server {study.server_version}",
        f"SLO: {', '.join(str(slo) for slo in recommendation.slos) or 'none'}",
        f"energy_per_output_token_j: {shown.energy_per_output_token_j}",
    ]
    lines.append(
        f"confirmed by {shown.repeats} measurements on launches of their own"
        if shown.confirmed
        else "unconfirmed: measured once, by the search"
    )
    if shown.saving_percent is not None:
        lines.append(f"{shown.saving_percent:.1f} % less energy per token than vLLM's default")
    if recommendation.is_default:
        lines.append("this is vLLM's default itself")
    if label:
        lines.append(f"EMULATED {label}: not measured on a real device")
    load = best.configuration.load
    if load:
        lines.append("at the load: " + ", ".join(f"{k} {v}" for k, v in load.items()))
    lines += [f"note: {warning}" for warning in recommendation.warnings]
    return [" ".join(line.split()) for line in lines] + ["use: vllm serve --config THIS_FILE.yaml"]


def _environment(variables: dict[str, Value]) -> list[str]:
    if not variables:
        return []
    lines = ["before starting:"]
    for name, value in variables.items():
        text = str(int(value)) if isinstance(value, bool) else str(value)
        lines += f"  export {name}={shlex.quote(text)}".splitlines()
    return lines


def _device(limits: dict[str, Value]) -> list[str]:
    """Return the commands that set the limits, and those that undo it."""
    lines = []
    if "power_limit_w" in limits:
        lines += [
            "for each GPU N of the server, as root (note the limit before: nvidia-smi -q -d POWER)",
            f"  nvidia-smi -i N -pl {_plain(limits['power_limit_w'])}",
            "  undo: nvidia-smi -i N -pl LIMIT_BEFORE",
        ]
    if "sm_clock_mhz" in limits:
        clock = _plain(limits["sm_clock_mhz"])
        lines += [
            "for each GPU N of the server, as root",
            f"  nvidia-smi -i N -lgc {clock},{clock}",
            "  undo: nvidia-smi -i N -rgc",
        ]
    return lines


def _plain(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
