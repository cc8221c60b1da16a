"""Where the files are that come with the project. Imports next to nothing: completion is quick."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Literal

Kind = Literal["search_spaces", "workloads", "gpus"]


def shipped_folder(kind: Kind) -> Path:
    """Return the folder of the files that come with the project (a checkout or an install)."""
    if kind == "gpus":
        return Path(__file__).parent / kind
    checkout = Path(__file__).parents[2] / kind
    return (
        checkout if checkout.is_dir() else Path(sysconfig.get_path("data")) / "share/tuner" / kind
    )


def shipped_names(kind: Kind) -> list[str]:
    """Return the names of the shipped files, sorted."""
    return sorted(path.stem for path in shipped_folder(kind).glob("*.yaml"))
