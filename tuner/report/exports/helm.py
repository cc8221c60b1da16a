"""A configuration as values of the Helm chart of vLLM's production stack."""

from __future__ import annotations

from typing import Any

from tuner.report.exports.deployment import Deployment, comments
from tuner.report.exports.kubernetes import (
    environment,
    limits_daemon_set,
    literal,
    node_notes,
    node_selector,
)
from tuner.report.exports.vllm import withheld_notes
from tuner.report.exports.yaml_text import yaml_text

_REPOSITORY = "https://vllm-project.github.io/production-stack"
# The chart makes host names, of at most 63 letters, of the release's and the model's name.
_RELEASE = "vllm"
_LONGEST_NAME = 30
_STARTUP_TRIES = 180  # every 10 s, as for the other exports; the chart gives up after 10 min
_CPUS_PER_GPU = 4
_MEMORY_GIB_PER_GPU = 32
# Without these the chart decides by itself, and not as vLLM does.
_OF_THE_CHART = {"enable_prefix_caching": "enablePrefixCaching"}


def helm_values(deployment: Deployment) -> str:
    """Return values for `helm install NAME vllm/vllm-stack -f FILE`."""
    d = deployment
    notes = (
        *d.about,
        *withheld_notes(d),
        *node_notes(d),
        f"once: helm repo add vllm {_REPOSITORY}",
        f"use: helm install {_RELEASE} vllm/vllm-stack -f THIS_FILE.yaml",
        f"undo: helm uninstall {_RELEASE}",
        "adapt: requestCPU and requestMemory, which were not measured",
        *(("adapt: pin the version in tag",) if d.release is None else ()),
    )
    engine = {
        "modelSpec": [_model(d)],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "startupProbe": {"failureThreshold": _STARTUP_TRIES},
    }
    data: dict[str, Any] = {"servingEngineSpec": engine}
    if d.has_limits:
        data["extraObjects"] = [limits_daemon_set(d)]
    return comments(notes) + yaml_text(data)


def _model(d: Deployment) -> dict[str, Any]:
    repository, _, tag = d.image.partition(":")
    model: dict[str, Any] = {
        "name": d.name.removeprefix("vllm-")[:_LONGEST_NAME].strip("-"),
        "repository": repository,
        "tag": tag,
        "modelURL": d.model,
        "replicaCount": 1,
        "requestCPU": _CPUS_PER_GPU * d.gpus,
        "requestMemory": f"{_MEMORY_GIB_PER_GPU * d.gpus}Gi",
        "requestGPU": d.gpus,
        "vllmConfig": _vllm_config(d),
        "env": environment(d),
    }
    if d.model_folder is not None:
        host_path = {"path": d.model_folder, "type": "Directory"}
        model["extraVolumes"] = [{"name": "model", "hostPath": host_path}]
        mount = {"name": "model", "mountPath": d.model_folder, "readOnly": True}
        model["extraVolumeMounts"] = [mount]
    if d.has_limits:
        terms = [
            {"key": key, "operator": "In", "values": [value]}
            for key, value in node_selector(d).items()
        ]
        model["nodeSelectorTerms"] = [{"matchExpressions": terms}]
    return model


def _vllm_config(d: Deployment) -> dict[str, Any]:
    """Return the flags, as words: the chart writes a large number as 1.048576e+06.

    Its template turns prefix caching off unless told, where vLLM has it on.
    """
    own: dict[str, bool | int] = {
        key: bool(d.flags.get(flag, True)) for flag, key in _OF_THE_CHART.items()
    }
    size = d.flags.get("tensor_parallel_size")
    if size is not None:
        own["tensorParallelSize"] = int(size)  # with it the chart mounts shared memory
    named = {*_OF_THE_CHART, "tensor_parallel_size"}
    flags = [name for name in d.flags if name not in named]
    of_flags = d.words[-len(d.flags) :] if d.flags else ()
    words = dict(zip(d.flags, of_flags, strict=True))
    omni = ["--omni"] if d.is_omni else []
    return {**own, "extraArgs": [literal(word) for word in (*omni, *map(words.__getitem__, flags))]}
