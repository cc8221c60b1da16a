"""Each command line of README and docs/ is read as it is written; what reads a store is run."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main
from helpers.records import IDENTITY
from helpers.stored_study import add_night
from helpers.studies import InProcess

import tuner
from tuner.cli import app
from tuner.commands.reading.studies import RECOMMEND_FORMATS
from tuner.store import Store

ROOT = Path(tuner.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
MODEL, STUDY = "meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct-chat"
READS = {"recommend", "report", "show", "list", "status", "export", "tasks"}
SHELL = {">", "|", "&", "&&", ";", "2>&1"}


def lines_of(page: Path) -> list[list[str]]:
    """Return the words after `tuner` of each line in a page's shell blocks."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if "\u2026" in line:  # it leaves something out
                continue
            words = shlex.split(line, comments=True)
            at = next((n for n, w in enumerate(words[:3]) if Path(w).name == "tuner"), None)
            if at is not None and not line.startswith(("alias", "pip", "docker")):
                rest = words[at + 1 :]
                end = next((n for n, word in enumerate(rest) if word in SHELL), len(rest))
                found.append(rest[:end])
    return found


LINES = [
    pytest.param(words, id=f"{page.name}: {' '.join(words)}"[:90])
    for page in PAGES
    for words in lines_of(page)
]


def test_there_are_lines_in_the_readme_and_in_the_docs() -> None:
    assert len(LINES) > 40
    assert len([page for page in PAGES if lines_of(page)]) > 10


@pytest.mark.parametrize("words", LINES)
def test_it_is_read_as_it_is_written(words: list[str]) -> None:
    """Every option, value and argument fits; nothing is run."""
    command, name, rest = typer.main.get_command(app), "tuner", list(words)
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest and rest[0] in command.commands else "studies"
        assert name in command.commands, words
        command = command.commands[name]
    with command.make_context(name, rest) as context:
        assert context.args == []


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    command = InProcess(tmp_path_factory.mktemp("written"))
    command.store_path.parent.mkdir()
    with Store.open(command.store_path, create=True) as store:
        add_night(store, replace(IDENTITY, name=STUDY, model=MODEL))
    return command


def as_here(words: list[str]) -> list[str]:
    """Return the line for the one study that there is here."""
    text = shlex.join(words)
    text = re.sub(r" --store \S+", "", text)
    text = re.sub(r" --(study|trial) \S+", "", text)
    return shlex.split(re.sub(r"\b(NAME|night|my-study)\b(?![.-])", STUDY, text))


@pytest.mark.parametrize("words", [p for p in LINES if p.values[0][0] in READS])  # type: ignore[index]
def test_what_reads_a_store_runs(night: InProcess, words: list[str]) -> None:
    done = night(*as_here(words))
    assert done.returncode == 0, done.stderr


def test_every_format_is_written_about() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for form in RECOMMEND_FORMATS:
        assert f"--format {form}" in text or f"`{form}`" in text or form == "table", form
