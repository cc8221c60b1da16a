"""Shipped data files of the package; imports little, so that shell completion is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["search_spaces", "workloads", "gpus", "engines"]

# `tuner/search_spaces` and `tuner/workloads` link to the folders of that name at the top of the
# repository; in a wheel and in an sdist they are folders with the files themselves.
_PLACES: dict[Kind, str] = {
    "search_spaces": "search_spaces",
    "workloads": "workloads",
    "gpus": "catalog/gpus",
    "engines": "catalog/engines",
}


def shipped_folder(kind: Kind) -> Path:
    """Return the folder of the files that ship with the package."""
    from importlib.resources import files

    return Path(str(files("tuner") / _PLACES[kind]))  # installers unpack wheels: it is on disk


def shipped_names(kind: Kind) -> list[str]:
    """Return the names of the shipped files, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.yaml"))
