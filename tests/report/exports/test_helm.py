from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml
from report.exports.conftest import WORDS

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
                }
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
        *(word.replace("$$(", "$(") for word in config["extraArgs"]),
        "--enable-prefix-caching"
        if config["enablePrefixCaching"]
        else "--no-enable-prefix-caching",
        f"--tensor-parallel-size={config['tensorParallelSize']}",
    }
    assert made == set(WORDS[1:])
    assert model["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] == [awkward.name]


def test_prefix_caching_stays_on_as_vllm_has_it(simple: Deployment) -> None:
    (model,) = yaml.safe_load(helm_values(simple))["servingEngineSpec"]["modelSpec"]
    assert model["vllmConfig"]["enablePrefixCaching"] is True
