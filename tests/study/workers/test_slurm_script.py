"""The Slurm script of docs/cards.md, on this host, with Ray and stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.studies import wait_for
from helpers.subprocesses import environment_with_helpers

from tuner.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(700)]

DOCS = Path(__file__).parents[3] / "docs" / "cards.md"
STUDY = """
study: s
model: Qwen/Qwen3-8B
emulate: H100-SXM
workload: smoke
concurrency: 8
space: power
slo: ["p99_tpot_ms<=100"]
window_s: 20
trials: 3
sampler: random
confirm: false
"""
SCONTROL = "#!/bin/sh\necho 127.0.0.1\n"
# The GPUs of this host are only declared.
SRUN = """#!/bin/sh
[ "$1 $2" = "ray symmetric-run" ] || exit 2
shift 2
exec ray symmetric-run --num-gpus=2 --num-cpus=4 --include-dashboard=false "$@"
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sl", dir="/tmp"))  # a socket's path has to be short
    yield folder
    shutil.rmtree(folder)


def test_a_night_under_slurm(tmp_path: Path, short_folder: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'ray>=2.60'")
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n#SBATCH.*?)```", DOCS.read_text(), re.DOTALL)
    port = 20_000 + os.getpid() % 20_000
    (tmp_path / "night.sh").write_text(script.replace(":6379", f":{port}"))
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    commands = tmp_path / "bin"
    commands.mkdir()
    tuner = f'#!/bin/sh\nexec {sys.executable} -m tuner "$@"\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("tuner", tuner)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = environment_with_helpers()
    path = [str(commands), str(Path(sys.executable).parent), environment["PATH"]]
    log = tmp_path / "out.log"
    with log.open("w") as out:
        night = subprocess.Popen(
            ["bash", "-e", "night.sh"],
            cwd=tmp_path,
            env={
                **environment,
                "PATH": os.pathsep.join(path),
                "HOME": str(tmp_path),
                "RAY_TMPDIR": str(short_folder),
                "RAY_USAGE_STATS_ENABLED": "0",
                "TUNER_STATE_DIR": str(tmp_path / "state"),
                "SLURM_JOB_NODELIST": "127.0.0.1",
                "SLURM_NNODES": "1",
                "SLURM_SUBMIT_DIR": str(tmp_path),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        wait_for(lambda: night.poll() is not None, 600.0, log.read_text)
    finally:
        night.kill()
    assert night.wait() == 0, log.read_text()
    with Store.open(tmp_path / "night.db", create=False) as store:
        assert store.study("s").finished_at is not None
        assert {trial.owner.card for trial in store.trials("s")} <= {"H100-SXM:0", "H100-SXM:1"}
