"""Stores that go away in mid-run, that hold bombs, and what a server's secrets leave in them."""

from __future__ import annotations

import asyncio
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.scripted import ScriptedEvaluator
from helpers.studies import InProcess, wait_for
from helpers.testbed import OWNER, SPEC, Testbed

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError
from tuner.records import Failure, FailureKind, Measurement
from tuner.store import Store, raw, study_lock
from tuner.store.log.measurement_log import MeasurementLog
from tuner.study.durability.backups import Backups
from tuner.study.durability.durable_evaluator import DurableEvaluator, Gate, StoreTimeouts

TOKEN = "hf_COLOURabcdefghijklmnop"
NIGHT = (
    *("run", "--emulate", "H100-SXM", "--model", "meta-llama/Llama-3.1-8B-Instruct"),
    *("--workload", "chat", "--request-rate", "4", "--space", "power", "--sampler", "random"),
    *("--slo", "p99_tpot_ms<=25", "--trials", "3000", "--study", "night", "--no-confirm"),
    *("--max-window-s", "40"),
)


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    other = path.with_name("other.db")
    Store.open(other, create=True).close()
    other.replace(path)


def folder_deleted(path: Path) -> None:
    for log in path.with_name(f"{path.name}.measured").iterdir():
        log.unlink()
    path.with_name(f"{path.name}.measured").rmdir()
    path.unlink()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "tuner.db", create=True) as opened:
        yield opened


@pytest.mark.parametrize("harm", [deleted, emptied, replaced, folder_deleted])
@pytest.mark.night
def test_a_store_that_goes_away_is_an_operators(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Break 16: a deleted or emptied store was a traceback, a replaced one a usage error."""
    tuner = InProcess(tmp_path, {"TUNER_STATE_DIR": str(tmp_path / "state")})
    run = tuner.start(*NIGHT)
    wait_for(lambda: run.poll() is not None or len(tuner.trials("night")) >= 3, 100)
    assert run.poll() is None, run.communicate()
    before = len([t for t in tuner.trials("night") if t.measurement])
    harm(tuner.store_path)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 5, err
    assert "Traceback" not in err
    assert "tuner store rebuild" in err
    if harm is not folder_deleted:
        new = tmp_path / "new.db"
        done = tuner("store", "rebuild", str(new), "--store", str(tuner.store_path))
        assert done.returncode == 0, done.stderr
        with Store.open(new, create=False) as store:
            assert len([t for t in store.trials("night") if t.measurement]) >= before


def test_a_raw_record_that_unfolds_to_gigabytes_is_damaged() -> None:
    """Break 9: a record of 2.5 MB took 5.1 GB."""
    packing = zlib.compressobj(1)
    zeros = b"\0" * 2**24
    bomb = bytes([raw.FORMAT_VERSION]) + b"".join(packing.compress(zeros) for _ in range(32))
    bomb += packing.flush()
    assert len(bomb) < 4e6  # of 512 MiB
    tracemalloc.start()
    try:
        with pytest.raises(OperatorNeededError, match="raw records are damaged"):
            raw.decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()


def test_a_servers_secret_is_in_no_table_and_no_note(store: Store, tmp_path: Path) -> None:
    """Break 6: it was taken out of the tuner's tables and stayed in Optuna's."""
    said = f"HTTP 401: \x1b[31m{TOKEN}\x1b[0m HF_TOKEN={TOKEN}2"

    def failing(configuration: Configuration, trial: int) -> Measurement | Failure:
        return Failure(FailureKind.CONFIGURATION, said)

    with study_lock(store.url, "s") as lock:
        bed = Testbed(store, spec=SPEC.model_copy(update={"trials": 2}))
        patience, note = StoreTimeouts(), bed.listener.note
        log = MeasurementLog(tmp_path / "log" / "s.jsonl", reserve_bytes=4096)
        log.open()
        bed.evaluator = DurableEvaluator(  # type: ignore[assignment]
            ScriptedEvaluator(failing),
            log,
            Gate(store, lock, note, patience),
            store,
            "s",
            OWNER,
            patience,
            Backups(store, 0, note),
        )
        asyncio.run(bed.start().run())
    assert store.path is not None
    for path in (store.path, log.path):
        content = path.read_bytes()
        assert b"HTTP 401" in content
        assert TOKEN.encode() not in content
    assert not any(TOKEN in text for text in map(str, bed.listener.notes))
