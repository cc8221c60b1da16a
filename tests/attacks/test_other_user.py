"""A user who is not root, with a home of their own, from a run to a report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

NOBODY = 65534
# they may read what root may, where Python and the package lie, and write nothing of it
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
RUN = (
    *("run", "--emulate", "H100-SXM", "--live", "--model", "Qwen/Qwen3-32B", "--study", "night"),
    *("--set", "max_model_len=4096", "--workload", "smoke", "--concurrency=2", "--window-s=1"),
    *("--trials=1", "--no-confirm"),
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux"),
]


@pytest.fixture
def home() -> Iterator[Path]:
    # pytest closes its own folders to other users
    with TemporaryDirectory(prefix="tuner-home-") as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


def tuner(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"}
    return subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "tuner", *words],
        cwd=home,
        env={
            **{name: value for name, value in os.environ.items() if name in kept},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(home),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.timeout(900)  # four commands, on a busy machine too
@pytest.mark.night
def test_a_night_of_a_user_without_rights(home: Path) -> None:
    for words in (
        RUN,
        ("resume", "night", "--trials", "1", "--no-confirm"),
        ("recommend",),
        ("report", "night", "-o", "night.html"),
    ):
        done = tuner(home, *words)
        assert done.returncode == 0, (words, done.stderr)
        assert "Traceback" not in done.stderr
    assert (home / "night.html").stat().st_size > 10_000
    assert (home / ".local" / "state" / "tuner").is_dir()
    written = [path for path in home.rglob("*") if path != home / "night.html"]
    assert {path.stat().st_uid for path in written} == {NOBODY}
    ours = [path for path in written if "__pycache__" not in path.parts]  # that is Python's own
    for path in (path for path in ours if home / "results" in (path, *path.parents)):
        assert path.stat().st_mode & 0o077 == 0, path
