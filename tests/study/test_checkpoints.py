"""A knob that switches the checkpoint: a quantised one beside the model's own weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tuner
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.launch_rules import resolve
from tuner.emulator.step_model import step_model
from tuner.errors import UsageError
from tuner.servers.vllm.server import VllmServer

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
OPTIONS = {"model": MODEL, "emulate": "H100-SXM", "request_rate": 4, "trials": 2, "window_s": 5}
SPACE = """
name: checkpoints
flags:
  model: {type: choice, choices: CHOICES}
"""


@pytest.fixture
def awq(tmp_path: Path) -> str:
    """A checkpoint of the same model in 4 bits, groups of 128."""
    config = json.loads(Path("tests/catalog/configs/llama-3.1-8b.json").read_text())
    weights = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    folder = tmp_path / "awq"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": weights}))
    return str(folder)


def spec(tmp_path: Path, choices: list[str | int], **more: object) -> tuner.StudySpec:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("CHOICES", json.dumps(choices)))
    return tuner.study_spec(None, {**OPTIONS, "space": str(path), **more})


def test_a_study_compares_a_checkpoint_with_the_models_own_weights(
    tmp_path: Path, awq: str
) -> None:
    asked = spec(tmp_path, ["unset", awq], allow_output_changes=True, confirm=False)
    study = tuner.run(asked, store=str(tmp_path / "tuner.db"), yes=True)
    own, quantised = study.rows
    assert quantised.configuration.flags == {"model": awq}
    assert own.measurement is not None
    assert quantised.measurement is not None
    energy = "energy_per_output_token_j"
    assert quantised.measurement.metrics[energy] < 0.9 * own.measurement.metrics[energy]


def test_the_server_is_launched_with_the_checkpoint() -> None:
    line = VllmServer(("vllm",), "0").command_line(
        MODEL, Configuration({"model": "x/y-AWQ", "seed": 1}), host="h", port=1, served_name="n"
    )
    assert line[:3] == ("vllm", "serve", "x/y-AWQ")
    assert line[-1] == "--seed=1"
    assert not any(word.startswith("--model") for word in line)


def test_the_emulated_server_reads_fewer_bytes_and_has_more_room(awq: str) -> None:
    model, gpu = load_model(MODEL), load_gpu("H100-SXM")
    flags = {"model": awq}
    own, other = (resolve(model, gpu, chosen) for chosen in ({}, flags))
    assert other.kv_blocks > own.kv_blocks
    steps = [step_model(model, gpu, f, resolve(model, gpu, f), None) for f in ({}, flags)]
    assert steps[1].decoding(1).rest.memory_bytes < 0.5 * steps[0].decoding(1).rest.memory_bytes


@pytest.mark.parametrize(
    ("choices", "more", "says"),
    [
        (["unset", MODEL], {}, "model may change the model's answers"),
        (["unset", "no/such-AWQ"], {"allow_output_changes": True}, "no/such-AWQ"),
        (["unset", 4], {"allow_output_changes": True}, "'model' needs choices"),
        (
            ["unset", MODEL],
            {"allow_output_changes": True, "set": ["model=x"]},
            "the model is --model's",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_launched(
    tmp_path: Path, choices: list[str | int], more: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        tuner.run(spec(tmp_path, choices, **more), store=str(tmp_path / "t.db"), yes=True)
    assert not (tmp_path / "t.db").exists()
