"""Names that are too long, and ports that are no numbers: one sentence, and nothing is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.studies import InProcess

from tuner.spec.study import LONGEST_STUDY_NAME
from tuner.store import Store

LONG = "x" * 300
RUN = (
    *("run", "--emulate", "H100-SXM", "--model", "Qwen/Qwen3-0.6B", "--workload", "smoke"),
    *("--request-rate", "2", "--window-s", "20", "--trials", "1", "--no-confirm"),
)
MEASURE = ("measure", "--model", "m", "--workload", "smoke", "--request-rate", "1")


@pytest.fixture
def tuner(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        (*RUN, "--study", LONG),
        (*RUN, "--study", "\u00e9" * 101),  # 202 bytes
        (*RUN, "--store", f"{LONG}.db"),
        (*RUN, "--store", "x" * 245),  # its backups and locks would have longer names
        (*RUN, "--store", "/".join(["y" * 200] * 30)),  # longer than a path may be
        (*RUN, "--store", f"postgresql://u@{LONG}/name"),
        (*RUN, "--store", "postgresql://u@h:abc/name"),
        (*RUN, "--store", "postgresql://u@h:99999/name"),
        (*RUN, "--space", LONG),
        (*RUN, "--space", f"./{LONG}.yaml"),
        (*RUN, "--space", f"power+{LONG}.yaml"),
        (*RUN, "--workload", LONG),
        (*RUN, "--workload", f"{LONG}.yaml"),
        (*RUN, "--baseline", f"{LONG}.yaml"),
        (*RUN, "--set", f"{LONG}=3"),
        (*RUN, "--slo", f"{LONG}<=5"),
        (*RUN, "--model", f"./{LONG}"),
        ("run", f"{LONG}.yaml"),
        (*MEASURE, "--base-url", "http://127.0.0.1:abc"),
        (*MEASURE, "--base-url", "http://127.0.0.1:99999"),
        (*MEASURE, "--base-url", f"http://{LONG}"),
        ("list", "--store", f"{LONG}.db"),
        ("status", LONG),
        ("workload", "show", f"{LONG}.yaml"),
        ("workload", "import", f"{LONG}.jsonl", "--format", "jsonl", "--out", "w.yaml"),
        ("store", "check", "--store", f"{LONG}.db"),
        ("store", "rebuild", f"{LONG}.db"),
    ],
    ids=lambda words: "-".join(words)[-60:].replace("x" * 20, ""),
)
def test_a_name_that_cannot_be(tuner: InProcess, words: tuple[str, ...]) -> None:
    done = tuner(*words)
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.count("tuner: ") == 1, done.stderr
    assert not list(tuner.folder.rglob("study.jsonl"))


def test_a_report_with_a_long_name(tuner: InProcess) -> None:
    done = tuner(*RUN, "--study", "n" * LONGEST_STUDY_NAME)
    assert done.returncode == 0, done.stderr
    refused = tuner("report", "-o", f"{LONG}.html")
    assert refused.returncode in (2, 3)
    assert "tuner: " in refused.stderr


def test_a_model_with_a_long_name_gives_a_study_a_shorter_one(
    tuner: InProcess, tmp_path: Path
) -> None:
    done = tuner(*RUN, "--model", f"Qwen/{'Qwen3-0.6B' * 20}")
    assert done.returncode == 2  # no such model; the name that it would have is another matter
    folder = tmp_path / ("f" * 250)
    folder.mkdir()
    from tuner.load.workload import load_workload
    from tuner.spec.study import StudySpec
    from tuner.study.run import _free_name

    with Store.open(tmp_path / "s.db", create=True) as store:
        name = _free_name(StudySpec(model=str(folder)), load_workload("smoke"), store)
    assert len(name) < LONGEST_STUDY_NAME
