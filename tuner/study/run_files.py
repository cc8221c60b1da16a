"""Files of a run: what it writes beside the store, from the study's lock to its logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tuner.configuration import Value
from tuner.errors import OperatorNeededError, TunerError
from tuner.host.files.private import group_to_share_with, private_folder, share_with_group
from tuner.host.files.trusted import require_trusted
from tuner.host.state_folder import state_folder
from tuner.store import Store, StudyIdentity, study_lock
from tuner.store.address import file_of, parse_address
from tuner.store.faults import StoreAwayError, StoreBusyError, StoreFullError
from tuner.store.lock.protocol import StudyLock
from tuner.store.log.log_records import LoggedStudy
from tuner.store.log.measurement_log import MeasurementLog
from tuner.store.log.now_file import NowFile
from tuner.store.upkeep.file_systems import require_local
from tuner.study.durability.durable_evaluator import opened_log
from tuner.study.study_log import StudyLog


def results_folder(store_url: str) -> Path:
    """Return the folder of what runs write: the store's, or `results/` for a database server."""
    path = file_of(parse_address(store_url))
    return Path("results") if path is None else path.parent


def log_folder(store_url: str, study: str) -> Path:
    """Return the folder of a study's logs, in `results_folder`."""
    return (results_folder(store_url) / "logs" / study).absolute()


def require_shareable(store_url: str, group: str) -> None:
    """Check that `share_results` will not be refused; changes nothing. Raises as it does."""
    group_to_share_with(results_folder(store_url), group)


def share_results(store_url: str, group: str) -> None:
    """Let a group read the results of this store's runs. Raises as `share_with_group`."""
    share_with_group(results_folder(store_url), group, file_of(parse_address(store_url)))


class RunFiles:
    """The measurement log, the study log and the now file of a study, under its lock.

    `folder` is where the servers' logs go: beside the store's file, else under `results/`.
    """

    def __init__(self, store: Store, study: str) -> None:
        self._store = store
        self._study = study
        self.folder = log_folder(store.url, study)
        self.study_log = StudyLog(self.folder / "study.jsonl")
        self.log = MeasurementLog(store.log_path(study, state_folder()))
        self.now_file = NowFile(store.url, study)
        self.lock: StudyLock | None = None  # while opened

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the study's lock and its files; how the run ends is written to the study log."""
        if self._store.path is not None:
            require_local(self._store.path)
            require_trusted(self._store.path)
        private_folder(self.folder)
        with (
            study_lock(self._store.url, self._study) as lock,
            self._store.written_under(lock),
            self._store.optuna_faults(),
            opened_log(self.log, self._store.shown),
            closing(self.study_log),
            closing(self.now_file),
        ):
            self.lock = lock
            try:
                yield
            except BaseException as error:
                is_signal = isinstance(error, asyncio.CancelledError)
                told = "interrupted" if is_signal else f"{type(error).__name__}: {error}"
                self.study_log.write("stopped", reason=told)
                if isinstance(error, OperatorNeededError):
                    self._add_stop_event(error)
                raise
            self.study_log.write("finished")

    def log_identity(self, identity: StudyIdentity, defaults: Mapping[str, Value]) -> None:
        """Write the study to the measurement log; raises `OperatorNeededError` if that fails."""
        try:
            self.log.append(LoggedStudy(identity, defaults))
        except OSError as error:
            raise OperatorNeededError(
                f"cannot write the measurement log {self.log.path} ({error.strerror}); fix that, "
                f"then `tuner resume {self._study}`"
            ) from error

    def put_log_aside(self, note: Callable[[str], None]) -> None:
        """Keep the measurement log of an earlier study of this name under another name.

        For before the study is stored: after a kill between the two, `resume` would take that log
        for its own. Nothing is done if the study is stored.
        """
        if self._study in {study.name for study in self._store.identities()}:
            return
        aside = self.log.put_aside()
        if aside is not None:
            note(
                f"an earlier study '{self._study}', which is not in the store, left a measurement "
                f"log; it is kept as {aside}"
            )

    def _add_stop_event(self, fault: OperatorNeededError) -> None:
        """Add why the run stopped to the study's events, if the store can be written."""
        if not isinstance(fault, StoreAwayError | StoreBusyError | StoreFullError):
            with suppress(TunerError):
                self._store.add_event(self._study, "stopped", str(fault))
