"""Commands on demand: each is where it is said to be, and only what is asked for is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import tuner.commands
from tuner.cli import MODULES, app
from tuner.commands.on_demand import CommandsOnDemand

FOLDER = Path(tuner.commands.__file__).parent


def names_in(module: str) -> list[str]:
    """Return the commands that the `app` of a module adds to `tuner`."""
    its_app = import_module(module).app
    if isinstance(its_app.info.name, str):
        return [its_app.info.name]
    return [command.name or command.callback.__name__ for command in its_app.registered_commands]


def test_every_command_is_where_it_is_said_to_be() -> None:
    for module in set(MODULES.values()):
        said = [name for name, place in MODULES.items() if place == module]
        assert said == names_in(module)


def test_no_module_with_commands_is_left_out() -> None:
    found = set()
    for path in FOLDER.rglob("*.py"):
        if "\napp = typer.Typer(" in path.read_text():
            parts = path.relative_to(FOLDER.parents[1]).with_suffix("").parts
            found.add(".".join(parts))
    assert found == set(MODULES.values())


def test_a_command_is_built_once_and_carries_its_name() -> None:
    commands = CommandsOnDemand(MODULES)
    for name in commands:
        assert commands[name].name == name
        assert commands[name] is commands[name]


def test_an_unknown_command_is_none_of_them() -> None:
    commands = CommandsOnDemand(MODULES)
    assert commands.get("nights") is None
    with pytest.raises(KeyError):
        commands["nights"]


def test_a_command_with_a_typing_error_is_suggested() -> None:
    done = CliRunner().invoke(app, ["recomend"])
    assert done.exit_code == 2
    assert "Did you mean 'recommend'?" in done.stderr


def test_the_names_are_listed_without_a_command() -> None:
    group = typer.main.get_command(app)
    assert group.list_commands(None) == list(MODULES)  # type: ignore[attr-defined]


def test_a_call_imports_no_other_command() -> None:
    program = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules))))\n"
        "sys.argv = ['tuner', 'recommend', '--help']\n"
        "from tuner.cli import main\n"
        "main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = json.loads(ran.stdout.splitlines()[-1])
    assert set(MODULES.values()) & set(loaded) == {MODULES["recommend"]}
