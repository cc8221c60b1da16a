"""`tuner store`, and that no secret of the environment stays anywhere after a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.studies import InProcess

SECRET = "hf_0123456789abcdefXYZ"
STUDY = "night"
SECRETS = ("HF_TOKEN", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY")
FORMATS = ("table", "json", "vllm", "env", "systemd", "compose", "k8s", "helm-values")
SHOWING = [
    "list --format json",
    "status --format json",
    f"show {STUDY}",
    f"show {STUDY} --format json",
    f"export {STUDY} --csv night.csv",
    f"report {STUDY} -o night.html",
    "store check",
    *(f"recommend --study {STUDY} --format {form}" for form in FORMATS),
]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    """A folder with a finished study, run with a secret in the environment."""
    tuner = InProcess(tmp_path_factory.mktemp("night"))
    with pytest.MonkeyPatch.context() as patch:
        for variable in SECRETS:
            patch.setenv(variable, SECRET)
        patch.setenv("TUNER_STATE_DIR", str(tuner.folder / "state"))
        words = (
            "run --emulate H100-SXM --model Qwen/Qwen3-8B --workload chat --window-s 10 "
            f"--trials 1 --sampler random --no-confirm --study {STUDY}"
        )
        done = tuner(*words.split())
        assert done.returncode == 0, done.stderr
    return tuner


def test_check_backup_and_rebuild(night: InProcess) -> None:
    store = night.folder / "results" / "tuner.db"
    assert night("store", "backup").returncode == 0
    found = json.loads(night("store", "check", "--format", "json").stdout)
    assert found == {"sound": True, "findings": []}
    assert night("store", "rebuild", "new.db").returncode == 0
    again = night("store", "rebuild", "new.db")
    assert again.returncode == 2 and "exists already" in again.stderr

    damaged = bytearray(store.read_bytes())
    damaged[4096 * 3 : 4096 * 8] = b"\xa5" * 4096 * 5
    (night.folder / "bad.db").write_bytes(damaged)
    bad = night("store", "check", "--store", "bad.db")
    assert bad.returncode == 5 and "tuner store rebuild" in bad.stderr
    assert "problem" in bad.stdout and "Traceback" not in bad.stderr

    gone = night("store", "check", "--store", "none.db")
    assert gone.returncode == 2 and "no store at none.db" in gone.stderr
    server = night("store", "backup", "--store", "postgresql://u@h/name")
    assert server.returncode == 2 and "pg_dump" in server.stderr


def test_no_secret_of_the_environment_is_kept_or_shown_anywhere(
    night: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in SECRETS:
        monkeypatch.setenv(variable, SECRET)
    for words in SHOWING:
        done = night(*words.split())
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert SECRET not in done.stdout + done.stderr, words
    files = [path for path in night.folder.rglob("*") if path.is_file()]
    assert {"tuner.db", "study.jsonl", "night.html", "night.csv"} <= {p.name for p in files}
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_a_password_in_the_address_of_a_server_is_refused(tmp_path: Path) -> None:
    tuner = InProcess(tmp_path)
    words = "run --model m --base-url http://me:hunter2@127.0.0.1:1 --trials 1 --space load"
    refused = tuner(*words.split())
    assert refused.returncode == 2
    assert "password" in refused.stderr and "hunter2" not in refused.stderr
    assert not (tmp_path / "results").exists()
