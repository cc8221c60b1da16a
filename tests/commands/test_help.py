"""Every command says what it does with an example, and README names what there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.text import Text
from typer.core import TyperGroup

import tuner
from tuner.cli import app

ROOT = Path(tuner.__file__).parents[1]
README = (ROOT / "README.md").read_text()
TEXTS = {str(p.relative_to(ROOT)): p.read_text() for p in [*ROOT.glob("docs/**/*.md")]}
TEXTS["README.md"] = README


def commands(group: TyperGroup, *above: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *above, name)
        else:
            yield " ".join((*above, name)), command


GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
COMMANDS = dict(commands(GROUP))


def options_of(name: str) -> set[str]:
    found = {"--help"}
    for parameter in COMMANDS[name].params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def words_of(line: str) -> tuple[str, list[str]] | None:
    """Return the command of a line `tuner ...`, and the options that the line gives it."""
    match = re.match(r"tuner ((?:[a-z]+ ?)*)", line)
    words = match.group(1).split() if match else []
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, re.findall(r"(?<![\w-])--[a-z][\w-]*", line)
    return None


def used_lines(text: str) -> list[str]:
    """Return what follows `tuner` in code: in fences, with continued lines joined, and inline."""
    joined = text.replace("\\\n", " ")
    return re.findall(r"(?<![\w/.`-])(?:`)?(tuner [a-z][^`\n#]*)", joined)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_sentence_an_example_and_help_for_all_it_takes(name: str) -> None:
    command = COMMANDS[name]
    assert command.help is not None
    first = " ".join(command.help.split("\n\n")[0].split())
    assert first.endswith("."), first
    examples = " ".join(command.help.split()).partition("Example")[2]
    assert f"tuner {name}" in examples, f"no example of `tuner {name}`"
    for line in re.findall(r"tuner [a-z][^;]*", examples):
        used = words_of(line)
        assert used is not None and set(used[1]) <= options_of(used[0]), line
    for parameter in command.params:
        assert parameter.help, f"{name}: {parameter.name} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_is_taken_for_markup_and_lost(name: str) -> None:
    texts = [COMMANDS[name].help, *(parameter.help for parameter in COMMANDS[name].params)]
    for text in texts:
        assert Text.from_markup(text).plain == text.strip(), "write ( ) instead of [ ]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_table_of_the_readme(name: str) -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `tuner ")]
    group, _, last = name.rpartition(" ")
    # a row names a command, or several of a group: `tuner workload show`, `preview`, `import`
    in_table = any(
        f"`tuner {name}" in row or (f"`tuner {group}".strip() in row and f"`{last}`" in row)
        for row in rows
    )
    assert in_table, f"README's table has no `tuner {name}`"


@pytest.mark.parametrize("path", TEXTS)
def test_every_option_that_is_written_about_exists(path: str) -> None:
    wrong = [
        f"{option} in '{line.strip()}'"
        for line in used_lines(TEXTS[path])
        if (used := words_of(line)) is not None
        for option in used[1]
        if option not in options_of(used[0])
    ]
    assert wrong == []


def test_every_option_that_the_readme_names_alone_exists() -> None:
    known = {option for name in COMMANDS for option in options_of(name)}
    known |= {"--config"}  # vLLM's own
    named = set(re.findall(r"`(--[a-z][\w-]*)", README))
    assert named - known == set()


def test_the_study_file_of_the_readme_is_its_command(tmp_path: Path) -> None:
    """Both ask for the same study."""
    (block,) = re.findall(r"`tuner run night.yaml`:\n\n```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "night.yaml").write_text(block)
    spec = tuner.study_spec(tmp_path / "night.yaml")
    (line,) = re.findall(
        r"^tuner run (--model meta.*?--hours 8)$", README, re.DOTALL | re.MULTILINE
    )
    words = shlex.split(line.replace("\\\n", " "))
    asked: dict[str, Any] = {"slo": []}
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--").replace("-", "_")
        asked[name] = [*asked["slo"], value] if name == "slo" else value
    assert spec == tuner.study_spec(options=asked)
