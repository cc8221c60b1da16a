"""Commands by name, of which only those asked for are imported and built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer


class CommandsOnDemand(Mapping[str, Any]):
    """Commands, each made from the `app` of its module when somebody asks for it.

    A call of one command needs no other, and all of them with their options take a tenth of it.

    `modules` says where each command is: in an `app` without a name, or the named `app` itself.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return a command as Typer builds it; raises `KeyError` for one that is not known."""
        if name not in self._built:
            whole = typer.Typer(rich_markup_mode=None)
            whole.add_typer(import_module(self._modules[name]).app)
            group: Any = typer.main.get_command(whole)
            self._built |= group.commands
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names, in the order of the help."""
        return iter(self._modules)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._modules)
