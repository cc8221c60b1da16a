"""Python, and the vLLM that a run would start."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from tuner.doctor.finding import Finding, ok, problem, warning
from tuner.errors import PreflightError
from tuner.serving.vllm import find_vllm, known_flags, vllm_version

_OLDEST, _NEWEST = (3, 11), (3, 13)
_PROBE_S = 180.0
_SCHEDULERS = ("vllm.v1.core.sched.scheduler", "vllm.v1.core.sched.async_scheduler")
_FIND = """
import importlib.util, sys
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
print(*("1" if there(name) else "0" for name in sys.argv[1:]))
"""


def check_python(found: tuple[int, int] = (sys.version_info[0], sys.version_info[1])) -> Finding:
    """Check the version of this Python."""
    shown = ".".join(map(str, found))
    if _OLDEST <= found <= _NEWEST:
        return ok("python", f"Python {shown} at {sys.executable}")
    return problem(
        "python",
        f"this is Python {shown}, and the tuner is made for 3.11 to 3.13",
        "python3.13 -m venv .venv && .venv/bin/pip install tuner",
    )


def check_packages(distribution: str = "tuner") -> Finding:
    """Check that what the package needs is installed, whatever its version."""
    try:
        needed = [line for line in requires(distribution) or () if "extra ==" not in line]
    except PackageNotFoundError:
        return warning(
            "packages",
            "the tuner is not installed in this Python, so what it needs is not known",
            "pip install .",
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


def check_vllm(explicit: str | None) -> list[Finding]:
    """Check the vLLM that a run would start. Takes as long as its import, several times."""
    try:
        command = find_vllm(explicit)
    except PreflightError as error:
        mend = "pip install 'tuner[vllm]'" if explicit is None else "unset TUNER_VLLM"
        sentence = f"{error}; without it only --emulate and --base-url work"
        return [problem("vllm", sentence, mend)]
    try:
        found, flags = vllm_version(command), known_flags(command)
    except PreflightError as error:
        return [problem("vllm", str(error), f"{shlex.join(command)} --version")]
    about = ok("vllm", f"vLLM {found} at {shlex.join(command)}, {len(flags)} flags")
    return [about, _scheduler(command, found, takes="scheduler_cls" in flags)]


def _scheduler(command: tuple[str, ...], found: str, *, takes: bool) -> Finding:
    """Say whether limits can change while this vLLM runs."""
    slow = "so each configuration is launched, which takes longer"
    upgrade = "pip install --upgrade vllm"
    if not takes:
        return warning("vllm limits", f"vLLM {found} has no --scheduler-cls, {slow}", upgrade)
    python = _python_of(Path(command[0]))
    if python is None:
        return ok("vllm limits", "--scheduler-cls is there; the first launch tries it")
    missing = _missing_modules(python)
    if missing is None:
        return warning("vllm limits", f"{python}, vLLM's Python, does not answer", f"{python} -V")
    if missing:
        return warning("vllm limits", f"vLLM {found} has no {', '.join(missing)}, {slow}", upgrade)
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


def _missing_modules(python: str) -> list[str] | None:
    """Return which of vLLM's schedulers are not where they are looked for; None: no answer."""
    try:
        done = subprocess.run(
            [python, "-c", _FIND, *_SCHEDULERS],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    words = done.stdout.split()[-len(_SCHEDULERS) :]  # vLLM may have printed something before
    if len(words) != len(_SCHEDULERS):
        return None
    return [name for name, word in zip(_SCHEDULERS, words, strict=True) if word != "1"]
