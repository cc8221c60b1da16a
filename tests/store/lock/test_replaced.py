"""A store whose file is another one by now, between two looks at its lock."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.stored_runs import EMULATED_NIGHT

from tuner.errors import OperatorNeededError, UsageError
from tuner.store import Store, study_lock
from tuner.store.lock.protocol import StudyLock


def test_a_running_study_that_is_unknown_means_another_file(tmp_path: Path) -> None:
    path = tmp_path / "tuner.db"

    def run_under(lock: StudyLock) -> None:
        with store.written_under(lock):
            store.trials("night")

    with Store.open(path, create=True) as store, study_lock(path, "night") as lock:
        with pytest.raises(UsageError, match="unknown study 'night'"):
            run_under(lock)
        store.create_study(EMULATED_NIGHT)
        run_under(lock)
        Store.open(tmp_path / "new.db", create=True).close()
        (tmp_path / "new.db").replace(path)
        store.close()  # as a pool does after a fault; the next connection opens the new file
        with pytest.raises(OperatorNeededError, match="was replaced by another file"):
            run_under(lock)
