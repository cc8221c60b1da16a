"""A study in MLflow and in Weights & Biases, read back by their own clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night
from helpers.studies import wait_for

from tuner.api.runs import track
from tuner.records import Source
from tuner.report.study_results import StudyResults, load_study
from tuner.report.tracking.tracked import summary_run, trial_runs
from tuner.store import Store

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.filterwarnings("ignore"),  # of the clients' own parts
]


@pytest.fixture
def study(tmp_path: Path) -> StudyResults:
    with Store.open(tmp_path / "tuner.db", create=True) as store:
        add_night(store, replace(IDENTITY, name="night", energy_source=Source.EMULATED))
    return load_study("night", str(tmp_path / "tuner.db"))


def told(study: StudyResults, **where: str) -> list[str]:
    notes: list[str] = []
    track(study, notes.append, **where)
    return notes


def runs_in(uri: str) -> list[Any]:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tuner")
    return list(client.search_runs([experiment.experiment_id]))


def as_the_study(runs: list[Any], study: StudyResults) -> None:
    (whole,) = [run for run in runs if "tuner_trial" not in run.data.tags]
    trials = {int(r.data.tags["tuner_trial"]): r for r in runs if "tuner_trial" in r.data.tags}
    assert trials.keys() == {row.number for row in study.rows if row.ended_at is not None}
    expected = summary_run(study)
    assert whole.data.metrics == pytest.approx(dict(expected.metrics))
    assert whole.data.params == dict(expected.params)
    for run in trial_runs(study):
        found = trials[run.number or 0]
        assert found.data.metrics == pytest.approx(dict(run.metrics))
        assert found.data.params == dict(run.params)
        assert found.data.tags["mlflow.parentRunId"] == whole.info.run_id
        assert found.info.status == ("FAILED" if run.is_failed else "FINISHED")
        assert found.data.tags["tuner_energy"] == "emulated" and "[emulated]" in found.info.run_name


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    command = os.environ.get("TUNER_MLFLOW") or shutil.which("mlflow")
    if command is None:
        pytest.skip("no mlflow server (make test-mlflow)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    log = (tmp_path / "server.log").open("w")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    process = subprocess.Popen(
        [command, "server", *words, *store],
        cwd=tmp_path,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    uri = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{uri}/health", timeout=2).status == 200
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        return False

    try:
        wait_for(answers, 120)
        yield uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(20)
        log.close()


def test_a_real_server_has_the_study(study: StudyResults, server: str) -> None:
    assert told(study, mlflow=server) == []
    as_the_study(runs_in(server), study)


def test_what_is_there_is_not_repeated(study: StudyResults, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):  # as after `tuner resume`
        assert told(study, mlflow=uri) == []
    as_the_study(runs_in(uri), study)


def test_a_server_that_is_away_harms_nothing_and_its_address_is_not_told(
    study: StudyResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (note,) = told(study, mlflow="http://me:hunter2hunter2@127.0.0.1:9")
    assert note.startswith("the study was not written to MLflow: ")
    assert "hunter2" not in note and "127.0.0.1" not in note


def test_wandb_keeps_it_on_this_machine(
    study: StudyResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert told(study, wandb="nights") == []
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    # its service writes the file, and may still do so
    wait_for(lambda: read_offline(file)[0] == len(trial_runs(study)), 60)
    wait_for(lambda: "result.saving_percent" in read_offline(file)[1], 60)


def read_offline(file: Path) -> tuple[int, set[str]]:
    """Return how many steps the client's own file has, and the keys of its summary."""
    from wandb.proto import wandb_internal_pb2

    steps, keys = 0, set()
    for content in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        steps += record.WhichOneof("record_type") == "history"
        keys |= {item.key or ".".join(item.nested_key) for item in record.summary.update}
    return steps, keys


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a LevelDB log, after the client's own seven bytes.

    Blocks of 32 KiB hold parts: checksum, length, and whether it is whole, first, middle or last.
    """
    at, parts = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""
