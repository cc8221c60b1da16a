"""What holds for every export: no secret, how to undo, where it comes from."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path

import pytest
from helpers.export_cases import ENVIRONMENT, SECRET

import tuner
from tuner.commands.reading.studies import RECOMMEND_FORMATS
from tuner.report.exports.deployment import Deployment
from tuner.report.exports.export import EXPORTS, load_export


def notes_of(form: str, text: str) -> list[str]:
    """Return what an export says beside its settings: its comments; JSON has none, but a list."""
    if form == "recipe":
        notes: list[str] = json.loads(text)["about"]
        return notes
    return [line for line in text.splitlines() if line.startswith("#")]


def test_the_command_knows_every_form() -> None:
    assert set(RECOMMEND_FORMATS) == {"table", "json", *EXPORTS}


@pytest.mark.parametrize("form", EXPORTS)
def test_no_secret_is_written_down_and_what_is_left_out_is_named(
    awkward: Deployment, form: str
) -> None:
    text = load_export(form)(awkward)
    assert SECRET not in text and str(ENVIRONMENT["MY_PASSWORD"]) not in text
    assert "left out because they look like secrets: hf_token, MY_PASSWORD, VLLM_OTHER" in text


@pytest.mark.parametrize("form", EXPORTS)
def test_it_says_where_it_comes_from_how_to_use_and_to_undo_it(
    awkward: Deployment, form: str
) -> None:
    comments = notes_of(form, load_export(form)(awkward))
    for part in ("study night, trial 2", "energy_per_output_token_j: 0.25", "use:", "undo:"):
        assert any(part in line for line in comments), part


@pytest.mark.parametrize("form", EXPORTS)
def test_what_is_emulated_says_so(emulated: Deployment, form: str) -> None:
    notes = notes_of(form, load_export(form)(emulated))
    assert any("EMULATED energy and latency" in note for note in notes)


@pytest.mark.parametrize("form", EXPORTS)
def test_without_limits_nothing_touches_the_gpu(simple: Deployment, form: str) -> None:
    assert "nvidia-smi" not in load_export(form)(simple)
    assert "--max-num-seqs=64" in load_export(form)(simple) or form == "vllm"


@pytest.mark.parametrize("form", EXPORTS)
def test_it_has_a_page(form: str) -> None:
    folder = Path(tuner.__file__).parents[1] / "docs" / "exports"
    page = (folder / f"{form}.md").read_text()
    assert f"tuner recommend --format {form}" in page
    assert f"_example/{form}.txt" in page  # which the site's build writes
    assert re.search(rf"^{form}$", (folder / "index.md").read_text(), re.MULTILINE)


def test_the_name_is_a_dns_label(awkward: Deployment) -> None:
    assert awkward.name == "vllm-my-model-home-n-q-d"
    assert set(awkward.name) <= set(string.ascii_lowercase + string.digits + "-")
