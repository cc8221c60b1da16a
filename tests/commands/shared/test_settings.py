"""Options from the environment and from the user's file: what comes first, and what is refused."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
from helpers.studies import InProcess

import tuner
from tuner.cli import app
from tuner.commands.shared.settings import SHARED, read_settings, setting_name

DRY = ("run", "--dry-run", "--format", "json", "--emulate", "H100-SXM", "--model", "Qwen/Qwen3-8B")
SECRET = "hunter2hunter2"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    monkeypatch.setenv("TUNER_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("")
    return InProcess(tmp_path)


def said(command: InProcess, text: str) -> None:
    (command.folder / "config.toml").write_text(text)


def budget(command: InProcess, *words: str) -> int:
    done = command(*DRY, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["evaluations"]
    return int(found[-1] if isinstance(found, list) else found)


def test_the_command_line_then_the_environment_then_a_study_file_then_the_users(
    command: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(command, "[run]\ntrials = 3\n")
    (command.folder / "night.yaml").write_text("trials: 4\n")
    assert budget(command) == 3
    assert budget(command, "night.yaml") == 4
    monkeypatch.setenv("TUNER_RUN_TRIALS", "5")
    assert budget(command, "night.yaml") == 5
    assert budget(command, "night.yaml", "--trials", "6") == 6


def test_a_shared_setting_is_everybodys_unless_a_command_has_its_own(
    command: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(command, '[all]\nstore = "all.db"\n[show]\nstore = "show.db"\n')
    assert "all.db" in command("list").stderr
    assert "show.db" in command("show").stderr
    monkeypatch.setenv("TUNER_STORE", "everybody.db")
    assert "everybody.db" in command("show").stderr
    monkeypatch.setenv("TUNER_SHOW_STORE", "its-own.db")
    assert "its-own.db" in command("show").stderr


def test_a_closed_loop_of_the_file_yields_to_an_open_one(command: InProcess) -> None:
    said(command, "[run]\nconcurrency = 8\ntrials = 1\n")
    done = command(*DRY, "--request-rate", "4")
    assert done.returncode == 0, done.stderr


def test_values_of_a_variable_are_words_as_of_a_shell(
    command: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_RUN_NOTIFY", "'touch told' https://example.org/hook")
    settings = read_settings(typer.main.get_command(app), ["run"])
    words = ["touch told", "https://example.org/hook"]
    assert settings.default_map()["run"]["notify"] == words


WRONG = [
    ("TUNER_RUN_TRIALS", "many", "TUNER_RUN_TRIALS: "),
    ("TUNER_RUN_LIVE", "perhaps", "TUNER_RUN_LIVE: "),
    ("TUNER_RUN_SLO", "p99_tpt_ms<=1", "did you mean 'p99_tpot_ms'"),
    ("TUNER_RUN_SLO", "p99_tpt_ms<=1", "TUNER_RUN_SLO"),
    ("TUNER_RUN_SLO", "'p99_tpot_ms<=1", "TUNER_RUN_SLO: a quotation mark"),
    ("TUNER_RUN_TRALS", "1", "did you mean TUNER_RUN_TRIALS"),
    ("TUNER_CONFIG", "none.toml", "TUNER_CONFIG: there is no file"),
    ("", "trials = 1", "allowed: all"),
    ("", "[run]\ntrals = 1", "did you mean 'trials'"),
    ("", "[rum]\ntrials = 1", "did you mean 'run'"),
    ("", "[all]\ntrials = 1", "under [all] 'trials'"),
    ("", "[run]\ntrials = 'many'", "run.trials in "),
    ("", "[run]\ntrials = [1]", "run.trials in "),
    ("", "[run]\nlive = 1", "run.live in "),
    ("", "run = 1", "[run] is a table"),
    ("", "[workload.imprt]\n", "did you mean 'import'"),
    ("", "trials", "not TOML"),
    ("", "[run]\nslo = '\udcff'", "not UTF-8"),
]


@pytest.mark.parametrize(("variable", "text", "says"), WRONG)
def test_what_is_wrong_is_one_sentence_with_its_place(
    command: InProcess, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, says: str
) -> None:
    if variable:
        monkeypatch.setenv(variable, text)
    else:
        content = text.encode(errors="surrogateescape")
        (command.folder / "config.toml").write_bytes(content)
    done = command(*DRY, "--hours", "1")
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_secret_is_shown_nowhere(command: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    said(
        command,
        f'[all]\nstore = "postgresql://me:{SECRET}@nowhere.invalid/db"\n'
        f'notify = ["hooks.slack.com/services/{SECRET}"]\n',
    )
    for words in (["list"], ["list", "--help"], ["run", "--help"], [*DRY, "--trials", "1"]):
        done = command(*words)
        assert SECRET not in done.stdout + done.stderr
    monkeypatch.setenv("TUNER_NOTIFY", f"https:///{SECRET}")
    done = command(*DRY, "--store", "x.db", "--trials", "1")
    assert done.returncode == 2 and "TUNER_NOTIFY" in done.stderr and SECRET not in done.stderr


def test_a_file_that_others_may_write_is_refused(command: InProcess) -> None:
    (command.folder / "config.toml").chmod(0o666)
    done = command("list")
    assert done.returncode == 2
    assert "other users may write" in done.stderr and "chmod go-w" in done.stderr


def test_without_a_file_nothing_is_read(
    command: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNER_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(command.folder / "config"))
    assert "results/tuner.db" in command("list").stderr
    (command.folder / "config" / "tuner").mkdir(parents=True)
    (command.folder / "config" / "tuner" / "config.toml").write_text('[all]\nstore = "my.db"\n')
    assert "my.db" in command("list").stderr


def options(group: Any, *above: str) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += options(command, *above, name)
        else:
            named = [p for p in command.params if p.param_type_name == "option"]
            found += [((*above, name), option) for option in named]
    return found


def test_every_option_has_a_variable_and_a_key(
    command: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = typer.main.get_command(app)
    every = options(group)
    assert len(every) > 100
    for path, option in every:
        value = "true" if option.is_flag else "7"
        monkeypatch.setenv("_".join(("TUNER", *path, setting_name(option))).upper(), value)
    for path, option in every:
        values = read_settings(group, path).default_map()
        for name in path:
            values = values[name]
        assert option.name in values, (path, option.name)


def test_the_file_of_the_documentation_is_one(command: InProcess) -> None:
    page = Path(tuner.__file__).parents[1] / "docs" / "settings.md"
    if not page.is_file():
        pytest.skip("no docs beside an installed package")
    (block,) = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    said(command, block)
    found = read_settings(typer.main.get_command(app), ["run"]).default_map()
    table = tomllib.loads(block)
    assert found["run"]["slo"] == table["run"]["slo"]
    assert found["run"]["store_url"] == str(Path("~/nights/tuner.db").expanduser())
    for name in SHARED:
        assert f"TUNER_{name.upper()}" in page.read_text()
