"""Python in a process of its own that can import `helpers`."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).parents[1]


def environment_with_helpers() -> dict[str, str]:
    """Return this environment, with `tests/` on the path of modules."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
