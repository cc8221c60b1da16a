"""Command output: results on stdout, and a closed pipe that ends the command quietly."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from tuner import DEFAULT_STORE


class ReaderGoneError(Exception):
    """The reader of stdout has closed it, as `| head` does."""


def store_option(store_url: str) -> str:
    """Return the option that names this store, for commands that a message suggests.

    A password is not shown.
    """
    if store_url == DEFAULT_STORE:
        return ""
    from tuner.api.texts import shown_address

    return f" --store {shlex.quote(shown_address(store_url))}"


def print_json(data: object) -> None:
    """Print a result as JSON; raises `ValueError` for NaN, which is a bug."""
    print_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


def print_nothing_to_deploy(study: str) -> None:
    """Say on stderr that no file is written, because nothing beats the default."""
    from rich.console import Console

    Console(stderr=True).print(
        f"nothing in study '{study}' beats vLLM's default, which meets the SLO: there is nothing "
        "to set, so no file is written (`--trial 0` writes the default's)",
        highlight=False,
        soft_wrap=True,
    )


def print_text(text: str) -> None:
    """Print a result as it is."""
    with until_reader_gone():
        print(text, end="", flush=True)  # noqa: T201 - the result on stdout


@contextmanager
def until_reader_gone() -> Iterator[None]:
    """Wrap writes to stdout: raise `ReaderGoneError` if the reader has closed it."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGoneError from None
