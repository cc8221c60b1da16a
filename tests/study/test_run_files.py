"""The measurement log of an earlier study of the same name, which is not in the store."""

from __future__ import annotations

import asyncio

import pytest
from helpers.testbed import SPEC, Died, identity

from tuner.spec.study import spec_from
from tuner.store import Store
from tuner.store.log.log_records import LoggedStudy
from tuner.study.listener import NullListener
from tuner.study.run import start_study
from tuner.study.run_files import RunFiles


def files_with_a_log(store: Store) -> RunFiles:
    files = RunFiles(store, "s")
    files.log.append(LoggedStudy(identity(SPEC), {}))
    return files


def test_a_kill_as_the_study_is_stored_leaves_no_log_of_another(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_with_a_log(store)

    def killed(*_: object) -> None:
        assert not files.log.path.exists()
        raise Died

    monkeypatch.setattr(Store, "create_study", killed)
    options = {"model": "Qwen/Qwen3-8B", "workload": "smoke", "emulate": "H100-SXM", "trials": 1}
    with pytest.raises(Died):
        asyncio.run(start_study(spec_from(None, {**options, "study": "s"}), store, NullListener()))
    assert files.log.path.with_suffix(".1.jsonl").exists()


def test_the_log_of_a_study_that_is_stored_stays(store: Store) -> None:
    files, notes = files_with_a_log(store), list[str]()
    store.create_study(identity(SPEC))
    files.put_log_aside(notes.append)
    assert files.log.path.exists() and not notes
