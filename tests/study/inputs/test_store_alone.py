"""A store in another folder, with nothing else: every command that a study's owner needs works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.studies import TINY_LLAMA, InProcess

from tuner.catalog.shipped import shipped_folder
from tuner.store import Store

SPACE = """
name: limits
flags:
  long_prefill_token_threshold: {type: int, low: 0, high: 1024, default: 0}
"""
WORKLOAD = """
description: three requests
trace: {file: traces/three.jsonl}
load: {concurrency: 4}
"""
ROW = '{"prompt_tokens": %d, "output_tokens": 24, "arrival_s": %d}\n'
GPU = "h100.yaml"


def inputs(folder: Path) -> list[str]:
    """Write every file that a study may read; return the options that name them."""
    (folder / "limits.yaml").write_text(SPACE)
    (folder / "traces").mkdir()
    rows = [ROW % (40 + n, n) for n in range(8)]
    (folder / "traces" / "three.jsonl").write_text("".join(rows))
    (folder / "three.yaml").write_text(WORKLOAD)
    shutil.copy(shipped_folder("gpus") / "H100-SXM.yaml", folder / GPU)
    (folder / "questions.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n')
    (folder / "tiny").mkdir()
    (folder / "tiny" / "config.json").write_text(TINY_LLAMA)
    named = {"--space": "limits.yaml+power", "--workload": "three.yaml", "--emulate": GPU}
    named |= {"--model": "tiny", "--quality": "questions.jsonl"}
    return [word for option in named.items() for word in option]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    tuner = InProcess(tmp_path_factory.mktemp("origin"))
    budget = [
        "--study",
        "night",
        "--trials",
        "3",
        "--window-s",
        "6",
        "--no-confirm",
        "--sampler",
        "random",
    ]
    done = tuner("run", *inputs(tuner.folder), *budget, "--slo", "p99_tpot_ms<=3")
    assert done.returncode == 0, done.stderr
    return tuner


@pytest.fixture
def moved(origin: InProcess, tmp_path: Path) -> InProcess:
    """The store alone, in another folder; the files of the run are out of reach."""
    tuner = InProcess(tmp_path / "elsewhere")
    tuner.store_path.parent.mkdir(parents=True)
    shutil.copy(origin.store_path, tuner.store_path)
    return tuner


@pytest.fixture
def lost(origin: InProcess) -> object:
    aside = origin.folder.with_name("aside")
    origin.folder.rename(aside)
    yield
    aside.rename(origin.folder)


def test_a_study_goes_on_from_its_store_alone(moved: InProcess, lost: object) -> None:
    resumed = moved("resume", "night", "--trials", "2")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("three.yaml", "limits.yaml", "questions.jsonl", GPU, "tiny"):
        assert f"{name}" in resumed.stderr
    assert "goes on with what its store kept" in resumed.stderr
    assert len(moved.trials("night")) == 5
    again = moved("resume", "night", "--trials", "1")  # from its own written files, again
    assert again.returncode == 0, again.stderr


def test_its_answer_is_read_from_the_store_alone(moved: InProcess, lost: object) -> None:
    answer = json.loads(moved("recommend", "--format", "json").stdout)
    assert answer["study"] == "night" and answer["recommended"]
    shown = moved("recommend")
    assert shown.returncode == 0
    written = moved("recommend", "--format", "env", "--trial", "1")
    assert written.returncode == 0 and "max-num-seqs" in written.stdout
    tasks = moved("tasks", "--format", "json")
    assert "closed loop, 4 requests under way" in tasks.stdout
    assert moved("report", "night", "-o", "night.html").returncode == 0
    assert moved("export", "night", "--csv", "night.csv").returncode == 0
    assert len((moved.folder / "night.csv").read_text().splitlines()) == 4


def test_the_model_may_lie_elsewhere(moved: InProcess, lost: object) -> None:
    model = moved.folder / "there"
    model.mkdir()
    (model / "config.json").write_text(TINY_LLAMA)
    resumed = moved("resume", "night", "--trials", "1", "--model", "there")
    assert resumed.returncode == 0, resumed.stderr
    (model / "config.json").write_text(TINY_LLAMA.replace("256", "512"))
    refused = moved("resume", "night", "--trials", "1", "--model", "there")
    assert refused.returncode == 3 and "the model's files" in refused.stderr
    missing = moved("resume", "night", "--trials", "1", "--model", "nowhere")
    assert missing.returncode == 2 and "no such folder" in missing.stderr


def test_a_file_that_has_changed_is_still_refused(origin: InProcess) -> None:
    space = origin.folder / "limits.yaml"
    space.write_text(SPACE.replace("high: 1024", "high: 512"))
    try:
        refused = origin("resume", "night", "--trials", "1")
    finally:
        space.write_text(SPACE)
    assert refused.returncode == 3 and "the search space (was" in refused.stderr


@pytest.mark.parametrize("space", sorted(p.stem for p in shipped_folder("search_spaces").glob("*")))
def test_a_search_space_is_the_same_after_it_was_kept(space: str, tmp_path: Path) -> None:
    from tuner.spec.device_ranges import example_ranges
    from tuner.spec.search_space import load_space
    from tuner.spec.study import StudySpec
    from tuner.study.inputs.keeping import files_to_keep

    was = load_space(space, example_ranges)
    (kept, *_) = files_to_keep(StudySpec(model="m", space=space), was)
    (tmp_path / kept.name).write_bytes(kept.content)
    assert load_space(str(tmp_path / kept.name)).sha256() == was.sha256()
    assert yaml.safe_load(kept.content)["name"] == was.name


def test_a_damaged_file_in_the_store_is_a_sentence(moved: InProcess, lost: object) -> None:
    import sqlite3

    with sqlite3.connect(moved.store_path) as connection:
        connection.execute("UPDATE tuner_study_files SET compressed = x'00' WHERE role = 'space'")
    connection.close()
    refused = moved("resume", "night", "--trials", "1")
    assert refused.returncode == 5 and "cannot be read" in refused.stderr
    assert Store.open(moved.store_path, create=False).trials("night")
