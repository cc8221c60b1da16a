from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from helpers.export_cases import JSON_FLAG, MODEL, having

from tuner.analysis.recommendation.recommend import Recommendation
from tuner.records import Source
from tuner.report.exports.deployment import Deployment, deployment
from tuner.report.exports.vllm import vllm_config


def test_flags_are_dash_spelled_and_false_is_a_no_flag(found: Recommendation) -> None:
    assert yaml.safe_load(vllm_config(deployment(found))) == {
        "model": "meta-llama/Llama-3.1-8B",
        "max-num-seqs": 512,
        "no-enable-prefix-caching": True,
    }


def test_values_that_look_like_others_stay_what_they_are(found: Recommendation) -> None:
    flags: dict[str, object] = {
        "dtype": "auto",
        "seed": "007",
        "quantization": "null",
        "compilation_config": '{"level": 3}',
        "gpu_memory_utilization": 0.9,
        "async_scheduling": True,
        "revision": "a: b # c\n d",
    }
    read = yaml.safe_load(vllm_config(deployment(having(found, flags=flags))))
    assert read == {"model": "meta-llama/Llama-3.1-8B"} | {
        name.replace("_", "-"): value for name, value in flags.items()
    }


def test_what_has_to_be_quoted_reads_back(awkward: Deployment) -> None:
    read = yaml.safe_load(vllm_config(awkward))
    assert (read["model"], read["compilation-config"]) == (MODEL, JSON_FLAG)


def test_what_yaml_cannot_set_is_in_the_comments_with_how_to_undo_it(
    found: Recommendation,
) -> None:
    asked = having(
        found,
        environment={"VLLM_USE_X": True, "EVIL": "a\nmodel: other"},
        device={"power_limit_w": 400.0, "sm_clock_mhz": 1410},
    )
    text = vllm_config(deployment(asked))
    assert "#   export VLLM_USE_X=1" in text
    assert "nvidia-smi -i N -pl 400\n" in text
    assert "nvidia-smi -i N -lgc 1410,1410" in text
    assert text.count("undo:") == 2
    assert yaml.safe_load(text) == {"model": "meta-llama/Llama-3.1-8B"}


def test_settings_that_all_trials_shared_are_there_too(found: Recommendation) -> None:
    fixed = {"flags": {"max_model_len": 4096, "max_num_seqs": 1}, "environment": {"A": "b"}}
    study = replace(found.study, spec_json={"fixed": fixed})
    text = vllm_config(deployment(replace(found, study=study)))
    read = yaml.safe_load(text)
    assert (read["max-model-len"], read["max-num-seqs"]) == (4096, 512)
    assert "export A=b" in text


def test_provenance_and_the_emulated_label(found: Recommendation) -> None:
    text = vllm_config(deployment(found))
    for part in ("study night, trial 2", "H100", "570.86", "0.11.0", "p99_tpot_ms<=50", "37.5 %"):
        assert part in text
    assert "EMULATED" not in text
    fake = replace(found, study=replace(found.study, energy_source=Source.EMULATED))
    assert "EMULATED energy:" in vllm_config(deployment(fake))


@pytest.mark.parametrize(
    ("version", "image"),
    [
        ("0.11.0", "vllm/vllm-openai:v0.11.0"),
        ("0.32.0+cpu", "vllm/vllm-openai:v0.32.0"),
        ("0.11.1.dev5+g0a1b2c3", "vllm/vllm-openai:latest"),
        ("emulator", "vllm/vllm-openai:latest"),
    ],
)
def test_the_image_is_of_the_version_that_was_measured(
    found: Recommendation, version: str, image: str
) -> None:
    study = replace(found.study, server_version=version)
    assert deployment(replace(found, study=study)).image == image
