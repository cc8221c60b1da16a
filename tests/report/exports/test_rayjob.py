"""The manifest of docs/cards.md: its pods are Kubernetes' own, and they ask for a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

MANIFEST = Path(__file__).parents[3] / "docs" / "cards-rayjob.yaml"


def test_the_pods_are_valid_and_ask_for_a_token() -> None:
    job: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.34", strict=True)
        (container,) = group["template"]["spec"]["containers"]
        # KubeRay sets the token; without a dashboard it could not submit the job
        assert "env" not in container
        assert group["rayStartParams"].get("include-dashboard") != "false"
    assert cluster["authOptions"] == {"mode": "token"}
    assert "--ray auto" in job["spec"]["entrypoint"]
