"""Helper processes: modules of this package started as processes, which may run as root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# -P: a file in the working directory cannot replace a module of the same name
PYTHON = (sys.executable, "-P", "-m")


def own_environment(*left_out: str) -> dict[str, str]:
    """Return this environment, changed so that the helper imports this copy of the package."""
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    folder = str(Path(__file__).parents[2])
    known = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = folder if known is None else f"{known}{os.pathsep}{folder}"
    return environment
