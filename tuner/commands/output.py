"""What a command leaves behind: JSON on stdout, and how to find the store again."""

from __future__ import annotations

import json
import shlex

from tuner import DEFAULT_STORE


def store_option(store_url: str) -> str:
    """Return what a command has to be given to find this store again."""
    return "" if store_url == DEFAULT_STORE else f" --store {shlex.quote(store_url)}"


def print_json(data: object) -> None:
    """Print a result for programs; NaN is a bug, not a value."""
    print(json.dumps(data, indent=2, allow_nan=False))  # noqa: T201 - the result on stdout
