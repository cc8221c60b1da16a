"""Stores as files: check, back up, and rebuild from the measurement logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tuner import DEFAULT_STORE
from tuner.errors import UsageError
from tuner.host.finding import Finding
from tuner.host.state_folder import state_folder
from tuner.store.address import existing_file
from tuner.store.store import Store

if TYPE_CHECKING:
    from tuner.study.durability.rebuild import Rebuilt


def check_store(store: str = DEFAULT_STORE) -> list[Finding]:
    """Check the file, its tables, Optuna's beside ours, and the measurement logs."""
    from tuner.store.upkeep.checks import check_file, check_studies

    path = existing_file(store)
    found = [] if path is None else check_file(path)
    if not any(finding.is_problem for finding in found):
        with Store.open(store, create=False) as opened:
            found += check_studies(opened, state_folder())
    return found


def back_up_store(store: str = DEFAULT_STORE) -> Path:
    """Copy a SQLite store while it is in use; return the path. The last two backups are kept."""
    from tuner.store.upkeep.backup import back_up

    path = existing_file(store)
    if path is None:
        raise UsageError("back up a PostgreSQL store with pg_dump")
    return back_up(path)


def rebuild_store(
    new: Path, note: Callable[[str], None], store: str = DEFAULT_STORE
) -> list[Rebuilt]:
    """Make a new SQLite store from the measurement logs of one that is damaged or lost."""
    from tuner.store.address import parse_address
    from tuner.store.log.measurement_log import log_folder_of
    from tuner.study.durability.rebuild import rebuild

    return rebuild(log_folder_of(parse_address(store), state_folder()), new, note)
