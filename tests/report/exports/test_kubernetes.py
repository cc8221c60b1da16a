from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helpers.export_cases import ODD, WORDS, expanded

from tuner.report.exports.deployment import Deployment
from tuner.report.exports.kubernetes import kubernetes_objects

VERSION = "1.34"


def objects(deployment: Deployment) -> dict[str, Any]:
    return {o["kind"]: o for o in yaml.safe_load_all(kubernetes_objects(deployment))}


def test_every_object_is_valid(awkward: Deployment, simple: Deployment) -> None:
    for each in (*objects(awkward).values(), objects(simple)["Deployment"]):
        kubernetes_validate.validate(each, VERSION, strict=True)
    wrong = objects(simple)["Deployment"]
    wrong["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_words_and_variables_arrive_as_they_are(awkward: Deployment) -> None:
    (container,) = objects(awkward)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert tuple(map(expanded, container["args"])) == (*WORDS, "--port=8000")
    variables = {e["name"]: e.get("value") for e in container["env"]}
    assert expanded(variables["VLLM_ODD"]) == ODD
    assert variables["HF_TOKEN"] is None and variables["MY_PASSWORD"] is None
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}


def test_the_server_runs_where_the_limits_are_set(awkward: Deployment, simple: Deployment) -> None:
    found = objects(awkward)
    pods = [found[kind]["spec"]["template"]["spec"] for kind in ("DaemonSet", "Deployment")]
    assert pods[0]["nodeSelector"] == pods[1]["nodeSelector"] == {"tuner/gpu-limits": awkward.name}
    (holder,) = pods[0]["containers"]
    assert "resources" not in holder  # it takes no GPU from a server
    assert "-pl 400;" in holder["command"][2]
    assert list(objects(simple)) == ["Deployment", "Service"]


def test_a_model_in_a_folder_is_mounted(simple: Deployment) -> None:
    pod = objects(replace(simple, model="/models/mine"))["Deployment"]["spec"]["template"]["spec"]
    assert {"name": "model", "hostPath": {"path": "/models/mine", "type": "Directory"}} in pod[
        "volumes"
    ]
