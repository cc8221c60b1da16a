from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml
from helpers.export_cases import ODD, WORDS

from tuner.report.exports.compose import compose_file
from tuner.report.exports.deployment import Deployment


@pytest.fixture(scope="module")
def schema() -> Any:
    """The published schema of the Compose specification, as check-jsonschema ships it."""
    path = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_is_valid(awkward: Deployment, simple: Deployment, schema: Any) -> None:
    validator = jsonschema.validators.validator_for(schema)(schema)
    for deployment in (awkward, simple):
        validator.validate(yaml.safe_load(compose_file(deployment)))
    data = yaml.safe_load(compose_file(simple))
    data["services"]["vllm"]["imagge"] = "x"
    assert not validator.is_valid(data)


def test_words_and_variables_arrive_as_they_are(awkward: Deployment) -> None:
    server = yaml.safe_load(compose_file(awkward))["services"]["vllm"]
    assert tuple(w.replace("$$", "$") for w in server["command"]) == (*WORDS, "--port=8000")
    assert not [w for w in server["command"] if "$" in w.replace("$$", "")]
    environment = server["environment"]
    assert environment["VLLM_ODD"].replace("$$", "$") == ODD
    assert environment["HF_TOKEN"] == "${HF_TOKEN:-}"
    assert environment["MY_PASSWORD"] == "${MY_PASSWORD:-}"
    devices = server["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["device_ids"] == ["0", "1"]


def test_the_server_waits_for_the_limits(awkward: Deployment, simple: Deployment) -> None:
    services = yaml.safe_load(compose_file(awkward))["services"]
    assert services["vllm"]["depends_on"] == {"gpu-limits": {"condition": "service_healthy"}}
    assert 'gpus="0 1";' in services["gpu-limits"]["command"][0]
    assert list(yaml.safe_load(compose_file(simple))["services"]) == ["vllm"]
