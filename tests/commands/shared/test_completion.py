"""The tabulator offers what there is, without loading what the commands need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night
from typer.testing import CliRunner

from tuner.cli import app
from tuner.commands.shared.completion import complete_gpu, complete_space, complete_workload
from tuner.commands.shared.study_names import study_names
from tuner.store import Store

HEAVY = (
    "sqlalchemy",
    "optuna",
    "pydantic",
    "numpy",
    "pandas",
    "yaml",
    "aiohttp",
    "psutil",
    "asyncio",
)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    path = tmp_path / "tuner.db"
    with Store.open(path, create=True) as store:
        add_night(store, IDENTITY)
    return path


def offered(line: str) -> list[str]:
    """Return what a bash would be told for this line."""
    words = len(line.split()) if line.endswith(" ") else len(line.split()) - 1
    environment = {
        "_TUNER_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(words),
    }
    done = CliRunner().invoke(app, prog_name="tuner", env=environment)
    return done.stdout.split()


def test_studies_of_the_store_on_the_line_and_of_the_environment(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert offered(f"tuner show --store {store_path} ") == ["night"]
    assert offered("tuner show ") == []
    monkeypatch.setenv("TUNER_STORE", str(store_path))
    assert offered("tuner resume ni") == offered("tuner status ni") == ["night"]
    assert offered("tuner recommend --study ") == ["night"]
    assert offered("tuner compare import x.json --study ") == ["night"]
    assert offered("tuner resume day") == []


def test_workloads_spaces_gpus_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "chat.txt").write_text("")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "deeper.yml").write_text("")
    assert complete_workload("") == [
        "chat",
        "code",
        "image",
        "reasoning",
        "smoke",
        "thinking",
        "video",
        "mine.yaml",
    ]
    assert complete_workload("ch") == ["chat"]
    assert complete_space("deep/") == ["deep/deeper.yml"]
    assert complete_gpu("h100") == ["H100-SXM"]
    assert offered("tuner run --emulate L4") == ["L4", "L40S"]
    assert offered("tuner run --space po") == ["power"]
    assert offered("tuner workload show rea") == ["reasoning"]


@pytest.mark.parametrize(
    "name", ["none.db", "notes.txt", "postgresql://user@host/db", "other.db", "."]
)
def test_no_names_where_there_is_no_store(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("my notes")
    (tmp_path / "other.db").write_bytes(b"SQLite format 3\0" + b"\xa5" * 4096)
    assert study_names(name if "://" in name else str(tmp_path / name)) == []
    assert not (tmp_path / "none.db").exists()


def test_names_by_url(store_path: Path) -> None:
    assert study_names(f"sqlite:///{store_path}") == ["night"]


def test_nothing_heavy_is_loaded(store_path: Path) -> None:
    code = (
        "import sys, json, tuner.cli\n"
        "import tuner.commands.shared.completion, tuner.commands.shared.study_names\n"
        f"tuner.commands.shared.study_names.study_names({str(store_path)!r})\n"
        "tuner.commands.shared.completion.complete_gpu('')\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & set(HEAVY)
