"""Help sections: every option of `tuner run` is under a heading."""

from __future__ import annotations

import re

import typer.main
from typer.testing import CliRunner

from tuner.cli import app
from tuner.commands.shared.help_sections import RUN_SECTIONS

RUN = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
WIDEST = 80


def test_every_option_of_run_has_a_section_and_no_section_names_another() -> None:
    named = [name for names in RUN_SECTIONS.values() for name in names]
    options = {p.name for p in RUN.params if p.param_type_name == "option"}
    assert sorted(named) == sorted(options)


def test_the_help_of_run_and_resume_has_each_option_once_and_fits_a_terminal() -> None:
    for command in ("run", "resume"):
        text = CliRunner().invoke(app, [command, "--help"]).stdout
        assert max(map(len, text.splitlines())) <= WIDEST
        for heading in ("Where:", "The search:", "The end of the night:"):
            assert f"\n{heading}\n" in text
        listed = text.partition("What to tune:")[2]
        known = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
        for parameter in known.params:
            if parameter.param_type_name == "option":
                shown = re.findall(rf"^  {parameter.opts[0]}(?= )", listed, re.MULTILINE)
                assert len(shown) == 1, parameter.opts[0]
