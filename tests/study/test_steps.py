"""The sampler's steps as a load knob: fewer take less energy, and need permission."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tuner.cli import app
from tuner.errors import UsageError
from tuner.load.workload import load_workload

GPU = ("--emulate", "H100-SXM", "--model", "stabilityai/stable-diffusion-3.5-medium")


def energy_j(*more: str) -> float:
    asked = ("measure", *GPU, "--workload", "image", "--window-s", "300", "--format", "json")
    found = CliRunner().invoke(app, [*asked, *more])
    assert found.exit_code == 0, found.output
    return float(json.loads(found.stdout)["metrics"]["energy_per_image_j"])


def test_half_the_steps_take_about_half_the_energy() -> None:
    assert 0.4 < energy_j("--set", "steps=14") / energy_j() < 0.65


def test_each_request_asks_for_them() -> None:
    workload = load_workload("image")
    own, fewer = next(workload.requests()), next(workload.requests(steps=9))
    assert getattr(fewer, "steps", 0) == 9
    assert getattr(own, "steps", 0) == 28
    assert getattr(own, "seed", 0) == getattr(fewer, "seed", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workload", "image"), "--allow-output-changes"),
        (("--workload", "chat", "--allow-output-changes"), "of images and videos"),
    ],
)
def test_they_change_pictures_and_are_of_nothing_else(words: tuple[str, ...], said: str) -> None:
    model = ("--model", "Qwen/Qwen3-8B", "--emulate", "H100-SXM") if "chat" in words else GPU
    asked = ["run", *model, *words, "--space", "diffusion-steps", "--trials", "2"]
    found = CliRunner().invoke(app, asked)
    assert isinstance(found.exception, UsageError)
    assert said in str(found.exception)
