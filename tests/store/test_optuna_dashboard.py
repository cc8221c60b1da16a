"""optuna-dashboard opens a store, and shows objectives, constraints and what was measured."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest
from helpers.studies import InProcess, wait_for

from tuner import load_study

SLO = "p99_tpot_ms<=18.8"
RUN = (
    "run --emulate H100-SXM --model Qwen/Qwen3-8B --workload chat --window-s 10 --study night "
    f"--trials 4 --sampler random --no-confirm --slo {SLO}"
)


@pytest.fixture(scope="module")
def tuner(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    tuner = InProcess(tmp_path_factory.mktemp("dashboard"))
    done = tuner(*RUN.split())
    assert done.returncode == 0, done.stderr
    return tuner


@pytest.fixture(scope="module")
def study(tuner: InProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What the dashboard's own API says of the study."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    log: Path = tmp_path_factory.mktemp("log") / "dashboard.log"
    command = Path(sys.executable).with_name("optuna-dashboard")
    words = [str(command), f"sqlite:///{tuner.store_path}", "--port", port, "--server", "wsgiref"]

    def get(path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return json.load(answer)

    def answers() -> bool:
        try:
            get("/api/studies")
        except (URLError, ConnectionError):
            assert process.poll() is None, log.read_text()
            return False
        return True

    with log.open("w") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
    try:
        wait_for(answers, 60)
        (summary,) = get("/api/studies")["study_summaries"]
        assert summary["study_name"] == "night"
        yield get(f"/api/studies/{summary['study_id']}")
    finally:
        process.terminate()
        process.wait(20)


def test_objectives_and_constraints_have_names(study: Any) -> None:
    assert study["objective_names"] == [
        "log energy_per_output_token_j:min",
        "log p99_tpot_ms:min",
    ]
    (attribute,) = study["user_attrs"]
    assert attribute["key"] == "constraints, met where <= 0: log(value / bound)"
    assert json.loads(attribute["value"].replace("'", '"')) == ["launch_ok", SLO]


def test_constraints_and_measurements_are_those_of_the_store(study: Any, tuner: InProcess) -> None:
    stored = {t.number: t for t in tuner.trials("night")}
    for trial in study["trials"]:
        found = stored[trial["number"]].measurement
        assert found is not None
        launch_ok, violation = trial["constraints"]
        assert launch_ok <= 0
        assert (violation <= 0) is (found.metrics["p99_tpot_ms"] <= 18.8)
        shown = {a["key"]: a["value"] for a in trial["user_attrs"]}
        assert (
            float(shown["energy_per_output_token_j"]) == found.metrics["energy_per_output_token_j"]
        )
    assert {t["constraints"][1] <= 0 for t in study["trials"]} == {True, False}


def test_the_front_is_ours_and_optunas(study: Any, tuner: InProcess) -> None:
    optuna_study = optuna.load_study(study_name="night", storage=f"sqlite:///{tuner.store_path}")
    ours = set(load_study("night", store=str(tuner.store_path)).front_to_pandas()["number"])
    # the dashboard's own list of best trials does not look at constraints; Optuna's does
    assert {t.number for t in optuna_study.best_trials} == ours
    met = {t["number"] for t in study["trials"] if max(t["constraints"]) <= 0}
    assert {t["number"] for t in study["best_trials"]} & met <= ours
    assert ours and ours < {t["number"] for t in study["trials"]}
