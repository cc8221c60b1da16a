"""The layout of the project: what tests may import, and where they live."""

from __future__ import annotations

import ast
import re
import statistics
from graphlib import TopologicalSorter
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


MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES})


@pytest.mark.parametrize("folder", FOLDERS, ids=relative)
def test_a_folder_is_read_at_a_glance(folder: Path) -> None:
    files = [path.name for path in folder.iterdir() if path.is_file() and path.name != "py.typed"]
    assert len(files) <= 12, f"{relative(folder)} has {len(files)} files: {sorted(files)}"


def test_files_are_short() -> None:
    lines = {relative(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > 400} == {}
    assert statistics.median(lines.values()) <= 120


def imported_at_once(path: Path) -> set[str]:
    """Return the modules of the package that are imported while this one is, not when it is used.

    Imports for type checkers alone, and those inside functions, wait.
    """
    found = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_for_types:
            waiting += ast.iter_child_nodes(node)
    return found


def test_no_module_imports_itself_by_a_detour() -> None:
    names = {
        ".".join(path.relative_to(TESTS.parent).with_suffix("").parts): path for path in MODULES
    }
    graph = {name: imported_at_once(path) & names.keys() for name, path in names.items()}
    assert tuple(TopologicalSorter(graph).static_order())  # raises `CycleError`


def test_every_module_that_is_started_as_a_process_exists() -> None:
    words = {
        node.value
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(r"tuner(\.[a-z_]+)+", node.value) and not node.value.endswith(".db")
    }
    assert len(words) >= 3
    for word in words:
        place = TESTS.parent.joinpath(*word.split("."))
        assert place.is_dir() or place.with_suffix(".py").is_file(), word
