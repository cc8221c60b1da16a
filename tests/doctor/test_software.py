"""Python and vLLM: found, too old, broken, or without what live limits need."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.doctor.software import check_packages, check_python, check_vllm
from tuner.host.finding import Level


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 10), "problem"), ((3, 11), "ok"), ((3, 14), "ok"), ((3, 15), "ok")],
)
def test_python_versions(version: tuple[int, int], level: str) -> None:
    assert check_python(version).level.value == level


def test_packages() -> None:
    assert check_packages().level is Level.OK
    assert check_packages("no-such-distribution").level is Level.WARNING


def fake_vllm(folder: Path, flags: str, *, version: str = "0.32.0", code: int = 0) -> str:
    script = folder / "vllm"
    script.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        f"sys.exit({code}) if {code} else None\n"
        f"print('vllm {version}' if '--version' in sys.argv else {flags!r})\n"
    )
    script.chmod(0o755)
    return str(script)


def test_a_vllm_without_the_modules_that_limits_need(tmp_path: Path) -> None:
    flags = "  --max-num-seqs N  most\n  --scheduler-cls C  ours\n"
    about, limits = check_vllm(fake_vllm(tmp_path, flags))
    assert about.level is Level.OK
    assert "vLLM 0.32.0" in about.message and "2 flags" in about.message
    assert limits.level is Level.WARNING  # this Python has no vllm package
    assert "v1/core/sched/async_scheduler.py" in limits.message
    assert "each configuration is launched" in limits.message


def test_a_vllm_of_before_scheduler_classes(tmp_path: Path) -> None:
    about, limits = check_vllm(fake_vllm(tmp_path, "  --max-num-seqs N  most\n"))
    assert (about.level, limits.level) == (Level.OK, Level.WARNING)
    assert "no --scheduler-cls" in limits.message


def test_a_vllm_that_is_no_script_of_python_is_asked_itself(tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo 0.30.1 && exit\n"
        "echo '  --max-num-seqs N  most'\necho '  --scheduler-cls C  ours'\n"
    )
    script.chmod(0o755)
    about, limits = check_vllm(str(script))
    assert "vLLM 0.30.1" in about.message
    assert (limits.level, "first launch" in limits.message) == (Level.OK, True)


def test_vllms_that_cannot_be_run(tmp_path: Path) -> None:
    (absent,) = check_vllm(str(tmp_path / "none"))
    assert absent.level is Level.PROBLEM
    assert "--emulate" in absent.message
    (broken,) = check_vllm(fake_vllm(tmp_path, "", code=7))
    assert broken.level is Level.PROBLEM
    assert "failed with code 7" in broken.message
    assert broken.fix is not None and broken.fix.endswith("vllm --version")


def test_modules_that_every_start_compiles_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine whose image sets PYTHONDONTWRITEBYTECODE; the fix it names mends it."""
    package = tmp_path / "vllm-package" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    command = fake_vllm(tmp_path, "  --max-num-seqs N  most\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert len(check_vllm(command)) == 2  # the first start would keep them
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    start = check_vllm(command)[-1]
    assert start.level is Level.WARNING and "compiled modules of vllm" in start.message
    assert start.fix is not None
    subprocess.run(shlex.split(start.fix), check=True)
    assert len(check_vllm(command)) == 2
