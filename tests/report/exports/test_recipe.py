from __future__ import annotations

import json

from helpers.export_cases import ENVIRONMENT, MODEL, WORDS

from tuner.report.exports.deployment import Deployment
from tuner.report.exports.recipe import recipe


def test_it_holds_the_command_word_by_word(awkward: Deployment) -> None:
    found = json.loads(recipe(awkward))
    assert found["command"] == ["vllm", "serve", *WORDS]
    assert found["model"]["model_id"] == MODEL
    assert found["model"]["base_args"] == list(WORDS[1:])
    assert found["model"]["base_env"]["VLLM_ODD"] == ENVIRONMENT["VLLM_ODD"]
    assert found["hardware"]["gpus"] == 2


def test_every_figure_has_its_unit_and_its_source(
    awkward: Deployment, emulated: Deployment
) -> None:
    measured = json.loads(recipe(awkward))["figures"]["energy_per_output_token_j"]
    assert measured == {"value": 0.25, "unit": "J/token", "source": "measured"}
    sources = {f["source"] for f in json.loads(recipe(emulated))["figures"].values()}
    assert sources == {"emulated"}
