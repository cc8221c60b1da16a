"""The export seam: what an export is, and the registry of those that exist.

How to add one:

1. Write `tuner/report/exports/NAME.py` with one function that takes a `Deployment` and returns the
   text of a file (`Export`). It computes nothing: what it needs and `Deployment` lacks goes there.
2. Add a line to `EXPORTS`. The command's `--format`, its completion, the HTML report and the tests
   of `tests/report/exports/test_export.py` take it from there.
3. Add a row to the table in docs/deploying.md, and a page in docs/exports/.

Every export
- quotes each word of the command as its format demands: a model's name, a flag or a variable may
  hold spaces, quotes, `$`, `%` or a line break;
- holds no secret: `Deployment` has none, and `withheld` names what the reader has to provide;
- carries every line of `Deployment.about`: the study, the figures, and EMULATED where they are;
- says how to use it and how to undo it, and sets no limit of a GPU if `has_limits` is False.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from tuner.host.plain_text import plain_text

if TYPE_CHECKING:
    from tuner.report.exports.deployment import Deployment

# by the name that `--format` takes; loaded when used, so that `--help` stays quick
EXPORTS: Mapping[str, str] = MappingProxyType(
    {
        "vllm": "vllm:vllm_config",
        "env": "env:env_file",
        "systemd": "systemd:systemd_unit",
        "compose": "compose:compose_file",
        "k8s": "kubernetes:kubernetes_objects",
        "helm-values": "helm:helm_values",
        "recipe": "recipe:recipe",
        "prometheus-rules": "alerts.prometheus:alert_rules",
    }
)


class Export(Protocol):
    """One format in which a deployment is written down."""

    def __call__(self, deployment: Deployment, /) -> str:
        """Return the text of the file."""


def load_export(name: str) -> Export:
    """Return the export of that name, one of `EXPORTS`."""
    module, function = EXPORTS[name].split(":")
    made: Export = getattr(import_module(f"tuner.report.exports.{module}"), function)

    def export(deployment: Deployment, /) -> str:
        return plain_text(made(deployment))  # a store from elsewhere may hold anything

    return export
