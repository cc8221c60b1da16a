"""A study of images on the emulator: run, recommend, report, export; no word of tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuner.cli import app
from tuner.errors import UsageError

MODEL = "stabilityai/stable-diffusion-3.5-medium"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "tuner.db"
    found = said(
        *("run", "--emulate", "H100-SXM", "--model", MODEL, "--workload", "image"),
        *("--space", "diffusion-power", "--slo", "p99_image_latency_ms<=60000"),
        *("--trials", "3", "--no-confirm", "--store", str(path)),
    )
    assert "J/image" in found
    return path


def said(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), env={"COLUMNS": "160"})
    assert found.exit_code == 0, found.output
    return found.output


def test_every_screen_speaks_of_images(store: Path) -> None:
    recommended = said("recommend", "--store", str(store))
    assert "J/image" in recommended
    assert "per image than" in recommended
    assert "per 1,000 images" in recommended
    shown = said("show", f"{MODEL.partition('/')[2]}-image", "--store", str(store))
    for text in (recommended, shown):
        assert "oken" not in text
        assert "TPOT" not in text


def test_the_answer_in_json(store: Path) -> None:
    answer = json.loads(said("recommend", "--store", str(store), "--format", "json"))
    best = answer["recommended"]
    assert best["output"] == "image"
    assert best["energy_per_unit_j"] == best["metrics"]["energy_per_image_j"]
    assert (
        best["metrics"]["energy_per_image_j"]
        <= 1.0001 * (answer["default"]["metrics"]["energy_per_image_j"])
    )
    assert set(answer["emulator_error"]) >= {"energy_per_image_j", "p99_image_latency_ms"}
    assert not [name for name in answer["emulator_error"] if "token" in name or "tpot" in name]


@pytest.mark.parametrize("form", ["vllm", "compose", "systemd", "k8s"])
def test_the_export_serves_with_omni(store: Path, form: str) -> None:
    text = said("recommend", "--store", str(store), "--format", form)
    assert "omni" in text
    assert "energy_per_image_j" in text
    assert "per token" not in text


def test_the_report(store: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    said("report", f"{MODEL.partition('/')[2]}-image", "--store", str(store), "--output", str(page))
    html = page.read_text()
    visible = html[html.index("<body") :]
    visible = re.sub(r"<script.*?</script>", "", visible, flags=re.S)
    assert "J per image" in visible
    assert "J/token" not in html
    assert "TPOT" not in visible


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--workload", "image", "--slo", "p99_tpot_ms<=50"), "has no p99_tpot_ms"),
        (("--workload", "chat"), "take --workload image"),
        (("--workload", "video"), "take --workload image"),
        (("--workload", "image", "--live"), "--live serves text only"),
        (("--workload", "image", "--space", "diffusion-lossy"), "--allow-output-changes"),
    ],
)
def test_what_does_not_go_together_is_said(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    asked = ("run", "--emulate", "H100-SXM", "--model", MODEL, "--trials", "2", *words)
    found = CliRunner().invoke(app, [*asked, "--store", str(tmp_path / "tuner.db")])
    assert isinstance(found.exception, UsageError)
    assert says in str(found.exception)
