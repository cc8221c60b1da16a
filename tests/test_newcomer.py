"""What a newcomer stumbled over in an hour with the README, each as it has to be."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night
from helpers.studies import InProcess

import tuner
from tuner.analysis.confirmed_front import confirmation_notes
from tuner.analysis.outcomes import trials_text
from tuner.report.study_results import load_study
from tuner.store import Store

ROOT = Path(tuner.__file__).parents[1]
README = (ROOT / "README.md").read_text()
STUDY = """
study: night
model: Qwen/Qwen3-8B
emulate: H100-SXM
workload: mine.yaml
concurrency: 8
slo: ["p99_tpot_ms<=60"]
window_s: 10
trials: 3
confirm: false
checks: false
"""


HEADS = {"study", "model", "workload", "started", "state"}  # of a list, which has lines instead


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    """A study of a file and of a workload of one's own."""
    command = InProcess(tmp_path_factory.mktemp("newcomer"))
    shutil.copy(ROOT / "workloads" / "smoke.yaml", command.folder / "mine.yaml")
    (command.folder / "night.yaml").write_text(STUDY)
    done = command("run", "night.yaml")
    assert done.returncode == 0, done.stderr
    return command


def test_a_run_says_what_it_will_do_before_it_begins(night: InProcess) -> None:
    shown = night("run", "night.yaml", "--dry-run", "--store", "other.db")
    for part in ("searches", "evaluations", "ends", "no real GPU is touched"):
        assert part in shown.stdout
    assert not (night.folder / "other.db").exists()


def test_no_count_exceeds_its_budget(night: InProcess) -> None:
    rows = load_study("night", str(night.store_path)).rows
    assert trials_text(rows, 1) == "1 of 1 trials and 2 after the search"
    assert "3 of 3 trials" in night("status").stdout


def test_the_store_alone_is_enough_to_resume(night: InProcess, tmp_path: Path) -> None:
    elsewhere = InProcess(tmp_path)
    elsewhere.store_path.parent.mkdir()
    shutil.copy(night.store_path, elsewhere.store_path)
    names = ("night.yaml", "mine.yaml")
    moved = [(night.folder / name, tmp_path / f"{name}.moved") for name in names]
    for here, there in moved:
        here.rename(there)
    try:
        done = elsewhere("resume", "--trials", "1")
        assert done.returncode == 0, done.stderr
        assert len(elsewhere.trials("night")) == 4
        for words in (["recommend"], ["report"], ["export", "--csv", "-"]):
            assert elsewhere(*words).returncode == 0, words
    finally:
        for here, there in moved:
            there.rename(here)


def test_the_only_study_need_not_be_named(night: InProcess) -> None:
    for words in (["show"], ["status"], ["recommend"], ["report"], ["export", "--csv", "-"]):
        done = night(*words)
        assert done.returncode == 0, done.stderr


def test_a_report_lies_beside_its_store(night: InProcess) -> None:
    assert night("report").returncode == 0
    assert (night.store_path.parent / "night.html").is_file()
    assert not list(night.folder.glob("*.html"))


def test_png_needs_no_folder(night: InProcess) -> None:
    done = night("report", "--png", "--store", "none.db")
    assert "requires an argument" not in done.stderr
    assert "none.db" in done.stderr or "Chromium" in done.stderr


def test_workloads_can_be_listed(night: InProcess) -> None:
    shown = night("workload", "list").stdout
    for path in (ROOT / "workloads").glob("*.yaml"):
        assert re.search(rf"^{path.stem}:", shown, re.MULTILINE)


def test_headroom_is_capacity_and_nothing_else(night: InProcess) -> None:
    assert "headroom" not in night("tasks").stdout
    (task,) = json.loads(night("tasks", "--format", "json").stdout)[0]["tasks"]
    assert "saving_percent" in task and "headroom_percent" not in task


def test_what_is_not_confirmed_is_one_number(tmp_path: Path) -> None:
    with Store.open(tmp_path / "tuner.db", create=True) as store:
        add_night(store, replace(IDENTITY, name="night"))
    found = load_study("night", str(tmp_path / "tuner.db")).confirmed_front
    many = replace(found, front=(), is_confirmed=True, unconfirmed=tuple(range(1, 17)))
    notes = [note for note in confirmation_notes(many) if note.startswith("not confirmed")]
    assert notes == ["not confirmed, so not shown: 16 trials on the front of the search"]


@pytest.mark.parametrize("command", ["recommend", "show", "list", "status", "tasks"])
def test_no_word_is_broken_in_a_narrow_terminal(night: InProcess, command: str) -> None:
    narrow = replace(night, environment={"COLUMNS": "60"})(command).stdout
    hint = "to deploy: "  # one line, to be copied
    lines = [line for line in narrow.splitlines() if not line.startswith(hint)]
    assert max(map(len, lines)) <= 60
    whole = set(re.findall(r"[a-z0-9]{4,}", night(command).stdout)) - HEADS
    assert whole - set(re.findall(r"[a-z0-9]{4,}", narrow)) == set()


def test_options_may_be_in_the_environment(
    night: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_RUN_TRIALS", "7")
    words = ["run", "night.yaml", "--dry-run", "--format", "json", "--store", "other.db"]
    assert json.loads(night(*words).stdout)["evaluations"][-1] == 7


def test_the_demo_names_its_store_its_time_and_the_next_command() -> None:
    demo = re.split(r"\n(?=\S)", (ROOT / "Makefile").read_text().split("\ndemo:")[1])[0]
    assert "one to two minutes" in demo
    stores = set(re.findall(r"--store (\S+)", demo.replace('"', " ")))
    assert stores == {"results/demo.db"}
    assert "tuner recommend" in demo and "tuner report" in demo


def test_the_readme_shows_a_study_file_and_explains_the_extra() -> None:
    assert re.search(r"tuner run night.yaml`:\n\n```yaml\nmodel:", README)
    assert "[vllm] also installs vLLM" in README
