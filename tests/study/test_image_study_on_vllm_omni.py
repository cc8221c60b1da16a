"""A study of images on a real vLLM-Omni: what cannot start, a kill, a resume, pictures, a report.

`.ci/vllm-omni-cpu.sh` sets it up with tiny pipelines of random weights; TUNER_OMNI names it. There
is no GPU: energy is emulated by whether the server is busy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tuner
from tuner.errors import TunerError
from tuner.records import FailureKind
from tuner.store import Store

pytestmark = [
    pytest.mark.omni,
    pytest.mark.skipif("TUNER_OMNI" not in os.environ, reason="TUNER_OMNI names no vllm-omni"),
    pytest.mark.timeout(2400),
]

# The adapter of diffusers does not start with enforce_eager.
SPACE = """
name: omni
fixed:
  flags:
    dtype: float32
    diffusion_load_format: diffusers
    diffusion_attention_backend: TORCH_SDPA
  environment: {VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1}
flags:
  enforce_eager: {type: choice, choices: [unset, true]}
"""
WORKLOAD = """
description: small pictures
generation: {output: image, sizes: [{height: 128, width: 128, share: 1}], steps: 2}
load: {concurrency: 2}
"""
NAME = "omni"


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tuner", *words, "--store", str(folder / "tuner.db")]


def said(folder: Path, *words: str) -> str:
    found = subprocess.run(command(folder, *words), capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def ended(folder: Path) -> int:
    """Return how many trials have ended; none while there is no store."""
    try:
        trials = Store.open(str(folder / "tuner.db"), create=False).trials(NAME)
    except TunerError:  # it is being made
        return 0
    return sum(trial.ended_at is not None for trial in trials)


def test_a_study_from_launch_to_report(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "image.yaml").write_text(WORKLOAD)
    executable = Path(os.environ["TUNER_OMNI"])
    model = executable.parents[1] / "pipelines" / "image"
    run = command(tmp_path, "run", "--model", str(model), "--vllm", str(executable))
    run += ["--workload", str(tmp_path / "image.yaml"), "--space", str(tmp_path / "space.yaml")]
    run += ["--study", NAME, "--allow-output-changes", "--trials", "2", "--window-s", "10"]
    run += ["--objective", "energy_per_image_j", "--confirm-repeats", "2", "--no-checks", "--yes"]
    log = tmp_path / "run.txt"
    with log.open("w") as out:
        process = subprocess.Popen(run, stdout=out, stderr=out)
    while ended(tmp_path) < 1 and process.poll() is None:
        time.sleep(1.0)
    time.sleep(3.0)  # the next is starting
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, log.read_text()

    said(tmp_path, "resume", NAME, "--yes")
    study = tuner.load_study(NAME, store=str(tmp_path / "tuner.db"))
    failures = [row.failure for row in study.rows if row.failure is not None]
    (refused,) = (f for f in failures if f.kind is FailureKind.CONFIGURATION)
    assert "Eager execution" in refused.reason
    spoiled = [f.reason for f in failures if f is not refused]  # the one that the kill cut
    assert len(spoiled) <= 1 and all("was stopped" in reason for reason in spoiled)

    answer = json.loads(said(tmp_path, "recommend", "--study", NAME, "--format", "json"))
    assert answer["recommended"]["metrics"]["energy_per_image_j"] > 0.0
    known = study.confirmed_front.confirmations
    compared = [one for found in known.values() for one in found.pictures]
    assert compared, "no pictures were compared"
    assert min(one.ssim for one in compared) > 0.99  # the same arithmetic
    said(tmp_path, "report", NAME, "--output", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "J/image" in page
