"""Python, and the vLLM that a run would start."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from tuner.doctor.finding import Finding, ok, problem, warning
from tuner.errors import PreflightError
from tuner.servers.vllm.command import find_vllm, known_flags, vllm_version

_OLDEST = (3, 11)
_PROBE_S = 60.0
_SCHEDULERS = ("v1/core/sched/scheduler.py", "v1/core/sched/async_scheduler.py")
# in vLLM's own Python, without importing it, which takes 15 s
_PROBE = """
import importlib.metadata, importlib.util, json, pathlib, sys
spec = importlib.util.find_spec("vllm")
folders = [] if spec is None else list(spec.submodule_search_locations or [])
there = [any((pathlib.Path(f) / name).exists() for f in folders) for name in sys.argv[1:]]
try:
    version = importlib.metadata.version("vllm")
except importlib.metadata.PackageNotFoundError:
    version = None
print(json.dumps([version, there]))
"""


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
    """Check that what the package needs is installed, whatever its version."""
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
    assert found is not None  # it comes from installed metadata
    return found.group()


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Installed:
    """The vLLM that a Python has: its version, None if not known, and which schedulers it lacks."""

    version: str | None
    missing: tuple[str, ...]


def check_vllm(explicit: str | None) -> list[Finding]:
    """Check the vLLM that a run would start. Takes as long as its import."""
    try:
        command = find_vllm(explicit)
    except PreflightError as error:
        mend = "pip install vllm" if explicit is None else "unset TUNER_VLLM"
        sentence = f"{error}; without it only --emulate and --base-url work"
        return [problem("vllm", sentence, mend)]
    python = _python_of(Path(command[0]))
    installed = None if python is None else _installed(python)
    try:
        flags = known_flags(command)
        known = None if installed is None else installed.version
        version = known or vllm_version(command)
    except PreflightError as error:
        return [problem("vllm", str(error), f"{shlex.join(command)} --version")]
    about = ok("vllm", f"vLLM {version} at {shlex.join(command)}, {len(flags)} flags")
    return [about, _limits(version, installed, takes="scheduler_cls" in flags)]


def _limits(version: str, installed: _Installed | None, *, takes: bool) -> Finding:
    """Say whether limits can change while this vLLM runs."""
    slow = "so each configuration is launched, which takes longer"
    upgrade = "pip install --upgrade vllm"
    if not takes:
        return warning("vllm limits", f"vLLM {version} has no --scheduler-cls, {slow}", upgrade)
    if installed is None:
        return ok("vllm limits", "--scheduler-cls is there; the first launch tries it")
    if installed.missing:
        names = ", ".join(installed.missing)
        return warning("vllm limits", f"vLLM {version} has no {names}, {slow}", upgrade)
    return ok("vllm limits", "--scheduler-cls is there, and the schedulers that ours is made from")


def _python_of(script: Path) -> str | None:
    """Return the Python that the first line of a script names; None for anything else."""
    try:
        with script.open("rb") as file:
            line = file.readline(4096)
    except OSError:
        return None
    word = line.removeprefix(b"#!").decode(errors="replace").strip()
    return word if line.startswith(b"#!/") and "python" in word and " " not in word else None


def _installed(python: str) -> _Installed | None:
    """Ask vLLM's Python what it has; None if it does not answer."""
    try:
        done = subprocess.run(
            [python, "-c", _PROBE, *_SCHEDULERS],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=True,
            text=True,
        )
        version, there = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    missing = (name for name, found in zip(_SCHEDULERS, there, strict=True) if not found)
    return _Installed(version, tuple(missing))
