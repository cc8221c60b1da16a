"""What each kind of job writes down is the study that was asked for, and nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.job_cases import Make
from helpers.studies import InProcess

import tuner
from tuner.commands.run import RunFormat
from tuner.errors import UsageError
from tuner.report.jobs.job import JOBS, job_text, study_job
from tuner.study.preview.run_preview import preview

ASKED = {
    "model": "Qwen/Qwen3-8B",
    "emulate": "H100-SXM",
    "slo": ["p99_tpot_ms<=25", "p99_ttft_ms<=500"],
    "request_rate": "0.7x",
    "objective": ["energy_per_output_token_j", "output_throughput_tok_s:max"],
    "set": ["max_num_seqs=64"],
    "loads": "0.5x,1x",
    "confirm_repeats": 3,
    "hours": 2,
}


def test_the_file_in_a_job_asks_for_the_same_study(tmp_path: Path) -> None:
    asked = tuner.study_spec(options=ASKED)
    text = job_text("k8s-job", study_job(preview(asked, "none.db"), "night"))
    config = next(o for o in yaml.safe_load_all(text) if o["kind"] == "ConfigMap")
    (tmp_path / "study.yaml").write_text(config["data"]["study.yaml"])
    read = tuner.study_spec(tmp_path / "study.yaml")
    assert read.model_copy(update={"study": None}) == asked and read.study == "night"


@pytest.mark.parametrize("form", JOBS)
def test_the_command_writes_it_and_runs_nothing(tmp_path: Path, form: str) -> None:
    command = InProcess(tmp_path)
    words = ["--emulate", "H100-SXM", "--model", "Qwen/Qwen3-8B", "--trials", "5"]
    done = command("run", *words, "--format", form)
    assert done.returncode == 0, done.stderr
    assert "tuner resume" in done.stdout and "qwen3-8b-chat" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_command_knows_every_job() -> None:
    assert {form.value for form in RunFormat if form.is_job} == set(JOBS)


def test_a_ray_cluster_has_a_job_of_its_own(make: Make) -> None:
    with pytest.raises(UsageError, match=r"cards\.md"):
        make(ray="auto", emulate=None)


def test_files_that_the_job_needs_are_named(make: Make) -> None:
    workload = Path(tuner.__file__).parents[1] / "workloads" / "chat.yaml"
    job = make(workload=str(workload))
    assert job.files == (str(workload),)
    for form in JOBS:
        assert str(workload) in job_text(form, job)
