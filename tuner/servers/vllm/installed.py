"""An installed vLLM, inspected without a launch: its flags, and whether its limits can change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.servers.vllm.adjustable import SCHEDULER_FLAG
from tuner.servers.vllm.command import known_flags, vllm_version
from tuner.servers.vllm.sources import ask_python, python_of

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
# packages whose modules were never compiled, and cannot be while a server imports them
_COMPILED = """
import importlib.util, json, os, pathlib, sys
found = []
for name in sys.argv[1:]:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        continue
    kept = pathlib.Path(importlib.util.cache_from_source(spec.origin))
    first = next(folder for folder in kept.parents if folder.exists())
    if not kept.exists() and (sys.dont_write_bytecode or not os.access(first, os.W_OK)):
        found.append(str(pathlib.Path(spec.origin).parent))
print(json.dumps([found, None]))
"""
_LARGEST = ("vllm", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class InstalledVllm:
    """A vLLM and its flags; `missing` are schedulers that it lacks, None if that is not known."""

    version: str
    flags: frozenset[str]
    missing: tuple[str, ...] | None

    @property
    def limits_problem(self) -> str | None:
        """Why limits cannot change while it runs; None if they can, as far as that is known."""
        if SCHEDULER_FLAG not in self.flags:
            return f"vLLM {self.version} has no --scheduler-cls"
        if self.missing:
            return f"vLLM {self.version} has no {', '.join(self.missing)}"
        return None

    @property
    def limits_note(self) -> str:
        """What makes us think that limits can change."""
        if self.missing is None:
            return "--scheduler-cls is there; the first launch tries it"
        return "--scheduler-cls is there, and the schedulers that ours is made from"


def inspect(command: tuple[str, ...]) -> InstalledVllm:
    """Ask a vLLM for what it has, which takes as long as its import. Raises `PreflightError`."""
    python = python_of(Path(command[0]))
    probed = None if python is None else _probed(python)
    flags = known_flags(command)
    version, missing = (None, None) if probed is None else probed
    return InstalledVllm(version or vllm_version(command), flags, missing)


def uncompiled(command: tuple[str, ...]) -> tuple[str, list[str]] | None:
    """Return vLLM's Python and the packages' folders that each start compiles again; None if none.

    A Python that may not keep compiled modules (PYTHONDONTWRITEBYTECODE, folders of root) compiles
    them in every process of every server, unless that was done when they were installed.
    """
    python = python_of(Path(command[0]))
    answer = None if python is None else ask_python(python, _COMPILED, *_LARGEST)
    if python is None or not answer or not answer[0]:
        return None
    folders, _ = answer
    return python, folders


def _probed(python: str) -> tuple[str | None, tuple[str, ...]] | None:
    """Ask vLLM's Python for its version, and which schedulers it lacks; None if no answer."""
    answer = ask_python(python, _PROBE, *_SCHEDULERS)
    if answer is None:
        return None
    version, there = answer
    missing = (name for name, found in zip(_SCHEDULERS, there, strict=True) if not found)
    return version, tuple(missing)
