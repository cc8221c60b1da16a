"""What a resume compares: each difference is named, what is not known is no difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.testbed import SPEC, identity

from tuner.errors import PreflightError
from tuner.records import Source
from tuner.study.identity import model_revision, require_same

STORED = replace(identity(SPEC), gpu_uuids=("GPU-1",), model_revision="a" * 40, driver="570.1")


def test_the_same_is_the_same_whatever_the_budget() -> None:
    require_same(STORED, replace(STORED, budget_trials=99, spent_s=5.0, spec_json={"seed": 3}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "n"}, r"the model \(was m, is n\)"),
        ({"model_revision": "b" * 40}, r"the model's files \(was aaaaaaaaaaaa, is bbbbbbbbbbbb\)"),
        ({"workload_sha256": "f" * 64}, r"the workload \(was w, is ffffffffffff\)"),
        ({"space_sha256": "x"}, r"the search space \(was s, is x\)"),
        ({"slos": ()}, r"the SLOs \(was p99_tpot_ms<=40, is none\)"),
        ({"server_version": "2.0"}, r"the server's version \(was 1.0, is 2.0\)"),
        ({"gpu": "other"}, r"the GPU \(was GPU, is other\)"),
        ({"gpu_uuids": ("GPU-2",)}, r"the GPU's UUID \(was GPU-1, is GPU-2\)"),
        ({"driver": "575.0"}, r"the GPU driver \(was 570.1, is 575.0\)"),
        ({"energy_source": Source.MEASURED}, r"where energy comes from \(was emulated"),
    ],
)
def test_each_difference_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(PreflightError, match=rf"{named}.*tuner run --from-study s`"):
        require_same(STORED, replace(STORED, **change))  # type: ignore[arg-type]


def test_all_differences_are_named_at_once() -> None:
    with pytest.raises(PreflightError, match=r"the GPU \(.*the GPU driver \("):
        require_same(STORED, replace(STORED, gpu="other", driver=None))


def test_a_study_of_an_older_tuner_has_no_uuid_to_compare() -> None:
    older = replace(STORED, gpu_uuids=(), model_revision=None)
    require_same(older, STORED)
    require_same(STORED, older)


def test_a_models_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "a.safetensors").write_bytes(b"12")
    first = model_revision(str(folder))
    assert first is not None and first == model_revision(str(folder))
    (folder / "notes.txt").write_text("nothing to do with it")
    assert model_revision(str(folder)) == first
    (folder / "a.safetensors").write_bytes(b"123")
    assert model_revision(str(folder)) != first

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert model_revision("org/name") is None
    refs = tmp_path / "hub" / "models--org--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("c0ffee\n")
    assert model_revision("org/name") == "c0ffee"
