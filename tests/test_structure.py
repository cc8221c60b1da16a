"""The layout of the project: what tests may import, and where they live."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "tuner"


def relative(path: Path) -> str:
    return str(path.relative_to(TESTS.parent))


def imported_modules(path: Path) -> set[str]:
    """Return every module that a file may import; in `from a import b` that is `a`, maybe `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


TEST_MODULES = sorted(TESTS.rglob("*.py"))
SHARED = [*TEST_MODULES, *sorted((TESTS.parent / "benchmarks").rglob("*.py"))]


@pytest.mark.parametrize("path", SHARED, ids=relative)
def test_what_tests_share_is_a_helper(path: Path) -> None:
    for name in imported_modules(path):
        module = TESTS.joinpath(*name.split(".")).with_suffix(".py")
        is_shared = name.split(".")[0] == "helpers" or not module.exists()
        assert is_shared, f"{relative(path)} imports {name}: move what they share to tests/helpers"
        if TESTS in path.parents:
            assert name.split(".")[0] != "benchmarks", f"{relative(path)} imports a benchmark"
