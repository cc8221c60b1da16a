"""The exports by the name of their form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tuner.report.exports.compose import compose_file
from tuner.report.exports.deployment import Deployment
from tuner.report.exports.env import env_file
from tuner.report.exports.helm import helm_values
from tuner.report.exports.kubernetes import kubernetes_objects
from tuner.report.exports.systemd import systemd_unit
from tuner.report.exports.vllm import vllm_config

EXPORTS: Mapping[str, Callable[[Deployment], str]] = MappingProxyType(
    {
        "vllm": vllm_config,
        "env": env_file,
        "systemd": systemd_unit,
        "compose": compose_file,
        "k8s": kubernetes_objects,
        "helm-values": helm_values,
    }
)
