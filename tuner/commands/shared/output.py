"""What a command leaves behind on stdout, and how to find the store again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuner import DEFAULT_STORE

if TYPE_CHECKING:
    from rich.console import Console


class ReaderGoneError(Exception):
    """What read stdout has closed it, as `| head` does: it wants no more."""


def store_option(store_url: str) -> str:
    """Return what a command has to be given to find this store again."""
    return "" if store_url == DEFAULT_STORE else f" --store {shlex.quote(store_url)}"


def print_json(data: object) -> None:
    """Print a result for programs; NaN is a bug, not a value."""
    print_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Print a result as it is."""
    with until_reader_gone():
        print(text, end="", flush=True)  # noqa: T201 - the result on stdout


@contextmanager
def until_reader_gone() -> Iterator[None]:
    """Around writing to stdout: raises `ReaderGoneError` where nobody reads it any more."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None


def stdout_console() -> Console:
    """Return the console for results: when its reader is gone, it raises `ReaderGoneError`."""
    from rich.console import Console

    class ResultConsole(Console):
        def on_broken_pipe(self) -> None:
            raise ReaderGoneError from None

    return ResultConsole()
