"""A result of vLLM's benchmark stands beside the default, without energy and off the front."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.bench_serve_results import RESULT, written
from helpers.records import IDENTITY
from helpers.stored_study import add_night
from helpers.studies import InProcess

from tuner.store import Store


@pytest.fixture
def tuner(tmp_path: Path) -> InProcess:
    made = InProcess(tmp_path)
    made.store_path.parent.mkdir()
    with Store.open(made.store_path, create=True) as store:
        add_night(store, IDENTITY)
    return made


def test_an_imported_result_is_shown_and_recommends_nothing(tuner: InProcess) -> None:
    before = json.loads(tuner("recommend", "--format", "json").stdout)
    path = written(tuner.folder, {**RESULT, "output_throughput": 99_999.0, "p99_tpot_ms": 1.5})
    done = tuner("compare", "import", path.name, "--study", "night")
    assert done.returncode == 0, done.stderr
    assert "vllm bench serve" in done.stdout and "2 of 200 requests failed" in done.stdout
    for words in (("show", "night"), ("recommend",)):
        text = tuner(*words).stdout
        assert "vllm bench serve" in text and "result.json" in text
        assert "this study's default" in text and "closed loop, 32" in " ".join(text.split())
        data = json.loads(tuner(*words, "--format", "json").stdout)
        (point,) = data.pop("comparison_points")
        assert point["energy_per_output_token_j"] is None
        assert point["metrics"]["p99_tpot_ms"] == 1.5
        if words == ("recommend",):  # nothing else changed, though it is best in everything
            before.pop("comparison_points")
            assert data == before


def test_bad_files_and_names_are_one_sentence(tuner: InProcess) -> None:
    (tuner.folder / "bad.json").write_text("{}")
    good = written(tuner.folder, RESULT)
    for words, says in (
        (("bad.json", "--study", "night"), "no result of vLLM's benchmark"),
        (("none.json", "--study", "night"), "cannot read 'none.json'"),
        ((good.name, "--study", "nigth"), "did you mean 'night'"),
    ):
        done = tuner("compare", "import", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_studies_side_by_side(tuner: InProcess) -> None:
    with Store.open(tuner.folder / "other.db", create=True) as store:
        add_night(store, replace(IDENTITY, name="later", gpu="H200"))
    for words in (("night", "other.db"), ("night", "other.db:later", "night")):
        done = tuner("compare", *words, "-o", "both.html")
        assert done.returncode == 0, done.stderr
        assert "night" in done.stdout and "later" in done.stdout and "H200" in done.stdout
    page = (tuner.folder / "both.html").read_text()
    assert "later" in page and "H200" in page and "<script" not in page
    data = json.loads(tuner("compare", "night", "other.db", "--format", "json").stdout)
    assert [s["study"] for s in data["studies"]] == ["night", "later"]
    assert data["studies"][0]["recommended"]["trial"] == 2
    assert data["differences"][0]["from_first"][0]["percent"] == 0.0
    wrong = tuner("compare", "night", "nigth")
    assert wrong.returncode == 2 and "did you mean 'night'" in wrong.stderr
    elsewhere = tuner("compare", "night", "other.db:night")
    assert elsewhere.returncode == 2 and "other.db: unknown study 'night'" in elsewhere.stderr


def test_one_study_differs_from_nothing(tuner: InProcess) -> None:
    for names, says in ((("night",), False), (("night", "night"), True)):
        done = tuner("compare", *names, "-o", "page.html")
        page = (tuner.folder / "page.html").read_text()
        assert ("second line" in done.stdout) is says and ("second line" in page) is says


@pytest.mark.parametrize("columns", [120, 80, 60])
def test_no_line_is_wider_than_the_terminal(tuner: InProcess, columns: int) -> None:
    from rich.console import Console

    from tuner.api.studies import compare_studies
    from tuner.report.terminal.side_by_side.table import show_side_by_side

    found = compare_studies(["night", "night"], str(tuner.store_path))
    console = Console(width=columns, record=True, file=io.StringIO())
    show_side_by_side(console, found)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= columns
    assert "p99 TPOT, ms" in " ".join(" ".join(lines).split())
