"""Each package imports only from below it."""

import ast
from pathlib import Path

import pytest

import tuner

ROOT = Path(tuner.__file__).parent
VOCABULARY = ["records", "slo", "metrics", "configuration", "pareto", "errors"]
# from top to bottom; what stands below may be imported
ORDER = [
    "__main__",
    "cli",
    "commands",
    "api",
    "plot",
    "report",
    "doctor",
    "study",
    "evaluation",
    "analysis",
    "spec",
    "search",
    "measurement",
    "load",
    "servers",
    "devices",
    "emulator",
    "store",
    "catalog",
    "host",
    *VOCABULARY,
]


def place(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_places(path: Path) -> set[str]:
    places = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        places |= {n.split(".")[1] for n in names if n.startswith("tuner.")}
    return places


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    here = place(path)
    if here == "__init__":
        here = "cli"
    for there in imported_places(path):
        assert ORDER.index(there) >= ORDER.index(here), f"{here} imports {there}"
