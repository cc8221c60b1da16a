"""Edit a stored study: rename it, delete it, write a note on it; never while a run holds it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection, delete, inspect, select, text, update

from tuner.errors import OperatorNeededError, UsageError
from tuner.host.durable_files import remove_durably, replacing, sync
from tuner.store.lock.study_lock import study_lock
from tuner.store.log.log_records import LoggedStudy
from tuner.store.log.measurement_log import MeasurementLog
from tuner.store.repeats import study_id_of
from tuner.store.schema import STUDIES
from tuner.store.store import Store

_OPTUNAS_STUDIES = "studies"


def set_note(store: Store, study: str, note: str | None) -> None:
    """Write a note on a study, None for none; a run may hold it."""
    with store.session() as session:
        own = STUDIES.c.id == study_id_of(session, study)
        session.execute(update(STUDIES).where(own).values(note=note))


def rename_study(store: Store, old: str, new: str, state_folder: Path) -> None:
    """Rename a study here, in Optuna's tables and of its measurement log.

    Both names have a log until the store says which is the study's: a `kill -9` loses nothing. Logs
    of servers stay where they are, as failures name them. Raises `UsageError` for a name that is
    taken, `PreflightError` if a run holds the study.
    """
    with _held(store, old, new):
        identity = store.study(old)
        with store.session() as session:
            _require_free(session, new)  # before the log of that name is touched
        before, after = store.log_path(old, state_folder), store.log_path(new, state_folder)
        had_log = before.exists()
        if had_log:
            MeasurementLog(after).put_aside()
            try:
                with before.open("rb") as log, replacing(after, 0o600) as copy:
                    shutil.copyfileobj(log, copy)
                sync(after)
            except OSError as error:
                raise OperatorNeededError(
                    f"cannot rename the measurement log {before} ({error.strerror}); fix that"
                ) from error
        with store.session() as session:
            _require_free(session, new)
            session.execute(update(STUDIES).where(STUDIES.c.name == old).values(name=new))
            if inspect(session).has_table(_OPTUNAS_STUDIES):
                session.execute(
                    text("UPDATE studies SET study_name = :new WHERE study_name = :old"),
                    {"new": new, "old": old},
                )
        if had_log:
            MeasurementLog(after).append(LoggedStudy(replace(identity, name=new), {}))
            remove_durably(before)
        with suppress(OSError):
            before.with_suffix(".reserve").unlink()


def delete_study(store: Store, study: str, state_folder: Path) -> None:
    """Delete a study from the store, Optuna's tables, and its measurement log.

    Raises `PreflightError` if a run holds it. After a `kill -9` it can be deleted again.
    """
    import optuna

    with _held(store, study):
        with store.session() as session:
            study_id_of(session, study)  # raises for an unknown name, before anything is deleted
        with suppress(KeyError), store.optuna_faults():
            optuna.delete_study(study_name=study, storage=store.optuna_storage())
        with store.session() as session:
            session.execute(delete(STUDIES).where(STUDIES.c.name == study))
        log = store.log_path(study, state_folder)
        for path in (log, log.with_suffix(".reserve")):
            with suppress(OSError):
                path.unlink()


def _require_free(session: Connection, name: str) -> None:
    if session.scalar(select(STUDIES.c.id).where(STUDIES.c.name == name)) is not None:
        raise UsageError(f"there is a study '{name}' already; choose another name")


@contextmanager
def _held(store: Store, *studies: str) -> Iterator[None]:
    with ExitStack() as stack:
        for study in sorted(studies):
            stack.enter_context(study_lock(store.url, study))
        yield
