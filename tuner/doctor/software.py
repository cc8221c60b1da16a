"""Software checks: Python, the tuner's dependencies, and the vLLM that a run would start."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from tuner.errors import PreflightError
from tuner.host.finding import Finding, ok, problem, warning
from tuner.servers.vllm.command import find_vllm
from tuner.servers.vllm.installed import InstalledVllm, inspect, uncompiled

_OLDEST = (3, 11)


def check_python(found: tuple[int, int] = (sys.version_info[0], sys.version_info[1])) -> Finding:
    """Check the version of this Python."""
    shown = ".".join(map(str, found))
    if found >= _OLDEST:
        return ok("python", f"Python {shown} at {sys.executable}")
    return problem(
        "python",
        f"this is Python {shown}, and the tuner needs 3.11 or a newer one",
        "python3.12 -m venv .venv && .venv/bin/pip install .  # in the project's folder",
    )


def check_packages(distribution: str = "tuner") -> Finding:
    """Check that the package's dependencies are installed, in any version."""
    try:
        needed = [line for line in requires(distribution) or () if "extra ==" not in line]
    except PackageNotFoundError:
        return warning(
            "packages",
            "the tuner is not installed in this Python, so what it needs is not known",
            "pip install .  # in the project's folder",
        )
    missing = [name for name in map(_name_of, needed) if not _is_installed(name)]
    if missing:
        names = " ".join(missing)
        return problem("packages", f"not installed: {', '.join(missing)}", f"pip install {names}")
    return ok("packages", f"tuner {version(distribution)} with its {len(needed)} dependencies")


def _name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None  # from installed metadata
    return found.group()


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def check_vllm(explicit: str | None) -> list[Finding]:
    """Check the vLLM that a run would start; takes as long as its import."""
    try:
        command = find_vllm(explicit)
    except PreflightError as error:
        fix = "pip install vllm" if explicit is None else "unset TUNER_VLLM"
        sentence = f"{error}; without it only --emulate and --base-url work"
        return [problem("vllm", sentence, fix)]
    try:
        vllm = inspect(command)
    except PreflightError as error:
        return [problem("vllm", str(error), f"{shlex.join(command)} --version")]
    about = f"vLLM {vllm.version} at {shlex.join(command)}, {len(vllm.flags)} flags"
    return [ok("vllm", about), _limits(vllm), *_start(command)]


def _start(command: tuple[str, ...]) -> list[Finding]:
    """Say whether each start compiles Python modules that could have been kept."""
    found = uncompiled(command)
    if found is None:
        return []
    python, folders = found
    names = ", ".join(Path(folder).name for folder in folders)
    sentence = (
        f"the compiled modules of {names} are not kept: each process of each server compiles them "
        "again, which was half of a launch where it was measured"
    )
    fix = shlex.join([python, "-m", "compileall", "-q", "-j", "0", *folders])
    return [warning("vllm start", sentence, fix)]


def _limits(vllm: InstalledVllm) -> Finding:
    """Say whether limits can change while this vLLM runs."""
    if vllm.limits_problem is None:
        return ok("vllm limits", vllm.limits_note)
    slow = "so each configuration is launched, which takes longer"
    return warning("vllm limits", f"{vllm.limits_problem}, {slow}", "pip install --upgrade vllm")
