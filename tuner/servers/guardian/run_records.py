"""Run records: which runs started servers here, so that the next run can clean up a dead one.

One file per run in the `runs` folder of the state folder, written before its first server starts.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.durable_files import remove_durably, write_durably
from tuner.host.locks import locked_folder
from tuner.host.process import Owner, owner_from_json

_FORMAT = 1


def register(state_folder: Path, owner: Owner) -> None:
    """Write down that the run begins. Raises `PreflightError` if that cannot be written."""
    path = _path(state_folder, owner.run_tag)
    content = json.dumps({"format": _FORMAT, "owner": owner.to_json()}, indent=2)
    try:
        with locked_folder(path.parent):
            write_durably(path, content + "\n")
    except OSError as error:
        raise PreflightError(
            f"this run cannot be written down in {path} ({error.strerror}), so nothing was "
            "started; free space, or name a writable folder in TUNER_STATE_DIR"
        ) from error


def forget(state_folder: Path, run_tag: str) -> None:
    """Say that nothing of the run is left. Raises `OperatorNeededError` if that cannot be done."""
    path = _path(state_folder, run_tag)
    try:
        if path.exists():
            remove_durably(path)
    except OSError as error:
        raise OperatorNeededError(
            f"the record of an ended run, {path}, cannot be removed ({error.strerror}); make the "
            "folder writable, then remove that file"
        ) from error


def registered(state_folder: Path) -> tuple[Owner, ...]:
    """Return the owners of runs that were not ended. Files that are something else are no runs."""
    owners = []
    for path in sorted((state_folder / "runs").glob("*.json")):
        owner = _read(path)
        if owner is not None and path == _path(state_folder, owner.run_tag):
            owners.append(owner)
    return tuple(owners)


def _read(path: Path) -> Owner | None:
    try:
        return owner_from_json(json.loads(path.read_text(encoding="utf-8"))["owner"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _path(state_folder: Path, run_tag: str) -> Path:
    # a tag may hold any character
    return state_folder / "runs" / f"{hashlib.sha256(run_tag.encode()).hexdigest()[:16]}.json"
