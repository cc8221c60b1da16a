"""What an installed vLLM takes beside its flags, read from its sources without importing them.

These are environment variables, and the fields of structured flags such as `speculative_config`.
A vLLM that is not a script of a Python here (a container, say) is not known; then all is taken.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROBE_S = 60.0
_OWN_VARIABLES = "VLLM_"

# In vLLM's own Python, whose syntax may be newer than ours. Importing vLLM would take 15 s.
_PROBE = """
import ast, importlib.util, json, pathlib
spec = importlib.util.find_spec("vllm")
folder = pathlib.Path(list(spec.submodule_search_locations)[0])

def named(target, name):
    return isinstance(target, ast.Name) and target.id == name

variables = []
for node in ast.parse((folder / "envs.py").read_text()).body:
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    if any(named(t, "environment_variables") for t in targets) and isinstance(node.value, ast.Dict):
        variables = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
fields = {}
for path in sorted((folder / "config").glob("*.py")):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            fields[node.name.lower()] = [
                line.target.id for line in node.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
                and not line.target.id.startswith("_")
            ]
print(json.dumps([variables, fields]))
"""


@dataclass(frozen=True, slots=True)
class VllmSources:
    """Environment variables of a vLLM, and the fields of its structured flags by class name."""

    variables: frozenset[str]
    fields: Mapping[str, Sequence[str]]

    def fields_of(self, flag: str) -> Sequence[str] | None:
        """Return the fields of a structured flag; None if it is not known as one."""
        return self.fields.get(flag.replace("_", "").lower())

    def lacks_variable(self, name: str) -> bool:
        """Say whether a variable is one of vLLM's by its name, and not known to it."""
        return name.startswith(_OWN_VARIABLES) and name not in self.variables


def read_sources(command: Sequence[str]) -> VllmSources | None:
    """Read the sources of the vLLM that a command starts; None if they cannot be read."""
    python = python_of(Path(command[0]))
    if python is None:
        return None
    variables, fields = ask_python(python, _PROBE) or ([], {})
    return VllmSources(frozenset(variables), fields) if variables else None


def ask_python(python: str, code: str, *words: str) -> tuple[Any, Any] | None:
    """Return the two values that code in vLLM's own Python prints as JSON; None if it does not."""
    try:
        done = subprocess.run(
            [python, "-c", code, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=True,
            text=True,
        )
        first, second = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, TypeError, ValueError):
        return None
    return first, second


def python_of(script: Path) -> str | None:
    """Return the Python that the first line of a script names; None for anything else."""
    try:
        with script.open("rb") as file:
            line = file.readline(4096)
    except OSError:
        return None
    word = line.removeprefix(b"#!").decode(errors="replace").strip()
    return word if line.startswith(b"#!/") and "python" in word and " " not in word else None
