from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import yaml
from helpers.export_cases import WORDS, expanded

from tuner.report.exports.deployment import Deployment
from tuner.report.exports.helm import helm_values

# Names and types of those values of the chart vllm-stack that the export uses.
CHART: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "servingEngineSpec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "modelSpec": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "repository": {"type": "string"},
                            "tag": {"type": "string"},
                            "modelURL": {"type": "string"},
                            "replicaCount": {"type": "integer"},
                            "requestCPU": {"type": "integer"},
                            "requestMemory": {"type": "string"},
                            "requestGPU": {"type": ["integer", "number", "string"]},
                            "env": {"type": "array"},
                            "nodeSelectorTerms": {"type": "array"},
                            "extraVolumes": {"type": "array"},
                            "extraVolumeMounts": {"type": "array"},
                            "vllmConfig": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {
                                    "enablePrefixCaching": {"type": "boolean"},
                                    "tensorParallelSize": {"type": "integer"},
                                    "extraArgs": {"type": "array", "items": {"type": "string"}},
                                },
                            },
                        },
                        "required": [  # by the chart's templates
                            *("name", "repository", "tag", "modelURL", "replicaCount"),
                            *("requestCPU", "requestMemory", "requestGPU"),
                        ],
                    },
                },
                "tolerations": {"type": "array"},
                "startupProbe": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"failureThreshold": {"type": "integer"}},
                },
            },
        },
        "extraObjects": {"type": "array"},
    },
}


@pytest.mark.parametrize("which", ["awkward", "simple"])
def test_it_uses_values_that_the_chart_has(which: str, request: pytest.FixtureRequest) -> None:
    data = yaml.safe_load(helm_values(request.getfixturevalue(which)))
    jsonschema.validate(data, CHART)
    for each in data.get("extraObjects", []):
        assert "{{" not in str(each)  # which the chart would take for a template


def test_the_chart_makes_the_same_command_line(awkward: Deployment) -> None:
    (model,) = yaml.safe_load(helm_values(awkward))["servingEngineSpec"]["modelSpec"]
    config = model["vllmConfig"]
    assert model["modelURL"] == WORDS[0]
    made = {
        *map(expanded, config["extraArgs"]),
        "--enable-prefix-caching"
        if config["enablePrefixCaching"]
        else "--no-enable-prefix-caching",
        f"--tensor-parallel-size={config['tensorParallelSize']}",
    }
    assert made == set(WORDS[1:])
    assert model["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == [awkward.name]


def test_the_host_names_that_the_chart_makes_are_short_enough(simple: Deployment) -> None:
    text = helm_values(replace(simple, name="vllm-" + "a-very-long-name-" * 3))
    (release,) = re.findall(r"helm install (\S+) ", text)
    (model,) = yaml.safe_load(text)["servingEngineSpec"]["modelSpec"]
    for made in (
        f"{release}-{model['name']}-vllm-stack",
        f"{release}-{model['name']}-engine-service",
    ):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", made)
    assert f"helm uninstall {release}\n" in text


def test_a_model_in_a_folder_is_mounted(simple: Deployment) -> None:
    text = helm_values(replace(simple, model="/models/mine"))
    data = yaml.safe_load(text)
    jsonschema.validate(data, CHART)
    (model,) = data["servingEngineSpec"]["modelSpec"]
    assert model["extraVolumes"][0]["hostPath"]["path"] == "/models/mine"
    assert model["extraVolumeMounts"][0]["mountPath"] == model["modelURL"] == "/models/mine"


def test_prefix_caching_stays_on_as_vllm_has_it(simple: Deployment) -> None:
    (model,) = yaml.safe_load(helm_values(simple))["servingEngineSpec"]["modelSpec"]
    assert model["vllmConfig"]["enablePrefixCaching"] is True
