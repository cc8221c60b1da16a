"""Starting is quick because little is imported: what is loaded is asserted, and no time."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

# each takes from a twentieth of a second to a whole one
HEAVY = [
    "aiohttp",
    "asyncio",
    "numpy",
    "optuna",
    "pandas",
    "pydantic",
    "pynvml",
    "rich",
    "scipy",
    "sqlalchemy",
    "yaml",
]


def loaded_after(program: str) -> set[str]:
    """Return the heavy modules that a new Python has loaded when `program` ends."""
    told = f"import sys; print('loaded:', *(set(sys.modules) & set({HEAVY})))"
    quoted = f"""
import atexit
atexit.register(lambda: exec({told!r}))
{program}
"""
    done = subprocess.run(
        [sys.executable, "-c", quoted], capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("loaded:"))
    return set(line.split()[1:])


def test_the_probe_sees_what_is_loaded() -> None:
    assert "yaml" in loaded_after("import yaml")


def test_import_tuner_loads_no_library() -> None:
    assert loaded_after("import tuner, sys; assert 'typer' not in sys.modules") == set()


def loaded_by(*words: str) -> set[str]:
    """Return the heavy modules that one call of the command line loads, beside Typer's own."""
    program = f"import sys; sys.argv = ['tuner', *{words!r}]\nfrom tuner.cli import main\nmain()"
    return loaded_after(program) - loaded_by_typer()


@cache
def loaded_by_typer() -> set[str]:
    """Return what `import typer` loads: Rich, if it is an older one."""
    return loaded_after("import typer")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_list_of_commands_loads_no_library_that_a_command_needs(option: str) -> None:
    assert loaded_by(option) == set()


@pytest.mark.parametrize("command", ["run", "measure", "recommend", "doctor"])
def test_the_help_of_a_command_loads_none_but_what_typer_reads_options_with(command: str) -> None:
    assert loaded_by(command, "--help") <= {"pydantic"}
