from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.scripted import Recorder, infrastructure, measurement

from tuner.configuration import Configuration
from tuner.errors import PreflightError
from tuner.store.log.now_file import NowFile
from tuner.study.listener import Progress
from tuner.study.proposals.proposals import Proposal
from tuner.study.study_log import LoggedListener, StudyLog

PROPOSAL = Proposal(3, Configuration(flags={"max_num_seqs": 8}), False, 2)
PROGRESS = Progress(4, 8, 10.0, 100.0)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_happens_is_passed_on_and_logged(tmp_path: Path) -> None:
    log, inner = StudyLog(tmp_path / "logs" / "study.jsonl"), Recorder()
    listener = LoggedListener(inner, log, NowFile(str(tmp_path / "s.db"), "night"))
    listener.study_started("night", PROGRESS)
    listener.trial_started(PROPOSAL)
    listener.trial_ended(PROPOSAL, measurement(x=1.0), PROGRESS)
    listener.trial_ended(PROPOSAL, infrastructure("gone"), PROGRESS)
    listener.note("hot")
    log.close()
    found = lines(log.path)
    assert [line["event"] for line in found] == [
        "study_started",
        "trial_started",
        "trial_ended",
        "trial_ended",
        "note",
    ]
    assert all(set(line) == {"time", "monotonic_s", "event", "trial", "facts"} for line in found)
    assert found[1]["trial"] == 3 and found[1]["facts"]["attempt"] == 2  # type: ignore[index]
    assert found[2]["facts"]["metrics"] == {"x": 1.0}  # type: ignore[index]
    assert found[3]["facts"]["reason"] == "gone"  # type: ignore[index]
    assert inner.notes == ["hot"] and len(inner.ended) == 2
    times = [line["monotonic_s"] for line in found]
    assert times == sorted(times)  # type: ignore[type-var]


def test_no_secret_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "very-secret")
    log = StudyLog(tmp_path / "study.jsonl")
    log.write("note", message="with very-secret in it", HF_TOKEN="x", deep=[{"url": "a://u:pw@h"}])
    log.write("note", message="lone \udcff surrogate")
    log.close()
    assert "very-secret" not in log.path.read_text() and ":pw@" not in log.path.read_text()
    assert len(lines(log.path)) == 2


def test_it_is_rotated_in_size(tmp_path: Path) -> None:
    log = StudyLog(tmp_path / "study.jsonl", largest_bytes=2000)
    for _ in range(100):
        log.write("note", message="x" * 100)
    log.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["study.jsonl", "study.jsonl.1", "study.jsonl.2", "study.jsonl.3"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())


def test_a_log_that_cannot_be_written_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "study.jsonl", tmp_path / "full.jsonl"):
        log = StudyLog(path)
        if path.name == "full.jsonl":
            log._handler.stream = Path("/dev/full").open("w")  # noqa: SIM115
        log.write("note", message="x")
        log.close()
        assert capsys.readouterr() == ("", "")


def test_it_does_not_go_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "study.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(PreflightError, match="is a link"):
        StudyLog(tmp_path / "study.jsonl")
    assert not (tmp_path / "victim").exists()
