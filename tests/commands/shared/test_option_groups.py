from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from tuner.commands.shared.option_groups import with_option_groups


@dataclass(frozen=True, kw_only=True)
class Bounds:
    low: Annotated[int, typer.Option(help="The lower bound.")]
    high: Annotated[int | None, typer.Option(help="The upper bound.")] = None


@with_option_groups
def show(bounds: Bounds, name: Annotated[str, typer.Argument()] = "x") -> None:
    """Show it."""
    typer.echo(f"{name} {bounds}")


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(show)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_the_fields_of_a_group_are_options() -> None:
    assert run("--low", "3", "z") == (0, "z Bounds(low=3, high=None)\n")
    assert run("--high", "4", "--low", "3") == (0, "x Bounds(low=3, high=4)\n")


def test_a_field_without_a_default_is_required() -> None:
    code, said = run("--high", "4")
    assert code == 2
    assert "--low" in said
