"""`tuner doctor` as users meet it: exit codes, JSON, and the command that mends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.studies import InProcess

FLAGS = "  --max-num-seqs N  most\n  --scheduler-cls C  ours\n"


@pytest.fixture
def vllm(tmp_path: Path) -> str:
    script = tmp_path / "vllm"
    script.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"print('0.32.0' if '--version' in sys.argv else {FLAGS!r})\n"
    )
    script.chmod(0o755)
    return str(script)


def test_a_machine_that_can(tmp_path: Path, vllm: str) -> None:
    done = InProcess(tmp_path)("doctor", "--vllm", vllm, "--format", "json")
    assert done.returncode == 0, done.stderr + done.stdout
    answer = json.loads(done.stdout)
    levels = [finding["level"] for finding in answer["findings"]]
    assert answer["problems"] == levels.count("problem") == 0
    assert answer["warnings"] == levels.count("warning")
    checks = {finding["check"] for finding in answer["findings"]}
    assert {"python", "packages", "vllm", "gpu", "store", "state disk", "port"} <= checks
    assert {"leftovers", "memory", "cpus", "open files", "clock"} - checks <= {"leftovers"}
    assert list(tmp_path.iterdir()) == [Path(vllm)]  # nothing was made


def test_a_machine_that_cannot(tmp_path: Path) -> None:
    done = InProcess(tmp_path)("doctor", "--vllm", "./none")
    assert done.returncode == 3
    assert "problem" in done.stdout and "unset TUNER_VLLM" in done.stdout
    assert "a run is not possible as it is (vllm)" in done.stderr
    assert "Traceback" not in done.stderr
