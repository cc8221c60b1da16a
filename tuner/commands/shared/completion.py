"""Shell completion: the suggestions on Tab (`tuner --install-completion`)."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from tuner import DEFAULT_STORE
from tuner.api.names import Kind, shipped_names


def complete_study(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the studies of the store given on the command line, in TUNER_STORE, or by default."""
    from tuner.commands.shared.study_names import study_names

    store = context.params.get("store_url") or os.environ.get("TUNER_STORE") or DEFAULT_STORE
    return [name for name in study_names(store) if name.startswith(incomplete)]


def complete_workload(incomplete: str) -> list[str]:
    """Offer the shipped workloads, and YAML files."""
    return _names_and_files("workloads", incomplete)


def complete_space(incomplete: str) -> list[str]:
    """Offer the shipped search spaces, and YAML files."""
    return _names_and_files("search_spaces", incomplete)


def complete_gpu(incomplete: str) -> list[str]:
    """Offer the shipped GPUs, and YAML files."""
    return _names_and_files("gpus", incomplete)


def complete_engine(incomplete: str) -> list[str]:
    """Offer the shipped engine profiles."""
    return [name for name in shipped_names("engines") if name.startswith(incomplete)]


def _names_and_files(kind: Kind, incomplete: str) -> list[str]:
    """Return the matching names; the case of a shipped name does not matter."""
    names = [n for n in shipped_names(kind) if n.lower().startswith(incomplete.lower())]
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    files = sorted(str(path) for path in folder.glob("*") if _is_offered(path))
    return names + [file for file in files if file.startswith(incomplete.removeprefix("./"))]


def _is_offered(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")
