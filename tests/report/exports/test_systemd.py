from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.export_cases import JSON_FLAG

from tuner.report.exports.deployment import Deployment
from tuner.report.exports.systemd import systemd_unit


def value_of(unit: str, setting: str) -> str:
    """Return a setting as systemd joins it: lines that end with a backslash, by a space."""
    lines = iter(unit.splitlines())
    value = next(line for line in lines if line.startswith(f"{setting}=")).partition("=")[2]
    while value.endswith("\\"):
        value = value[:-1] + " " + next(lines).strip()
    return value


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("which", ["awkward", "simple"])
def test_systemd_finds_nothing_wrong(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    deployment: Deployment = request.getfixturevalue(which)
    path = tmp_path / f"{deployment.name}.service"
    path.write_text(systemd_unit(deployment))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if deployment.name in line]
    assert (done.returncode, said) == (0, [])


def test_limits_are_set_before_and_put_back_after(awkward: Deployment) -> None:
    unit = systemd_unit(awkward)
    before, after = value_of(unit, "ExecStartPre"), value_of(unit, "ExecStopPost")
    for script in (before, after):
        assert script.startswith("+/bin/sh -c '") and script.endswith("'")
        assert "'" not in script[len("+/bin/sh -c '") : -1] and "\\" not in script
    assert 'gpus="0 1";' in before and 'nvidia-smi -i "$$gpu" -pl 400;' in before
    assert 'nvidia-smi -i "$$gpu" -pl "$$limit"' in after and "-rgc" in after
    assert "CUDA_VISIBLE_DEVICES=0,1" in unit


def test_every_word_is_quoted_for_systemd(awkward: Deployment) -> None:
    unit = systemd_unit(awkward)
    command = value_of(unit, "ExecStart")
    assert '"acme corp/My Model $$HOME %%n \'q\' \\"d\\""' in command
    quoted = JSON_FLAG.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    assert f'"--compilation-config={quoted}"' in command
    assert 'Environment="VLLM_ODD=a \'b\' \\"c\\" $d %%e \\\\f `g` $(h) #i"' in systemd_unit(
        awkward
    )
