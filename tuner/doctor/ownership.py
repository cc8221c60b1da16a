"""Ownership checks: whether another user could replace what a run reads, writes or starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuner.errors import PreflightError
from tuner.host.files.trusted import distrust_of
from tuner.host.finding import Finding, ok, problem
from tuner.host.state_folder import state_folder
from tuner.store.address import file_of, parse_address

_CHECK = "ownership"
_STATE_FILES = ("*.json", "runs/*.json", ".lock", "runs/.lock")


def check_ownership(store_url: str) -> list[Finding]:
    """Check the store, its locks and logs, and the state folder with its leases and locks."""
    try:
        places = [*_state(state_folder()), *_beside(file_of(parse_address(store_url)))]
    except PreflightError:
        return []  # there is no state folder, which the disk check reports
    found = _distrusted(places)
    return found or [ok(_CHECK, "no other user can replace the files of a run")]


def _state(folder: Path) -> list[Path]:
    found = [path for pattern in _STATE_FILES for path in sorted(folder.glob(pattern))]
    return [folder, folder / "runs", *found]


def _beside(store: Path | None) -> list[Path]:
    if store is None:
        return [Path("results/logs")]
    logs = store.parent / "logs"
    return [store, *sorted(store.parent.glob(f"{store.name}.*")), logs, *sorted(logs.glob("*"))]


def _distrusted(places: Sequence[Path]) -> list[Finding]:
    """Return a problem for each place that mends something; folders above many are told once."""
    found: dict[str, Finding] = {}
    for place in places:
        if (why := distrust_of(place)) is not None:
            found.setdefault(why.fix, problem(_CHECK, why.reason, why.fix))
    return list(found.values())
