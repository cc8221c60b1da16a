"""Each package imports only from below it, and the commands only the API."""

import ast
from pathlib import Path

import pytest

import tuner

ROOT = Path(tuner.__file__).parent
VOCABULARY = ["pictures", "records", "slo", "metrics", "configuration", "pareto", "errors"]
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


# a command reads its options, calls the API, and prints what it returns
PRINTING = ("tuner.report.json_forms", "tuner.report.price", "tuner.report.terminal")
CALLED_BY_COMMANDS = ("tuner.api", "tuner.commands", "tuner.errors", *PRINTING)


def imported_names(path: Path) -> set[str]:
    """Return what a file imports of `tuner`, except what `tuner` exports itself."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    exported = {f"tuner.{name}" for name in tuner.__all__}
    return {name for name in names if name.startswith("tuner.")} - exported


@pytest.mark.parametrize(
    "path", sorted((ROOT / "commands").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_commands_call_only_the_api_and_print(path: Path) -> None:
    others = {
        name
        for name in imported_names(path)
        if not any(name == known or name.startswith(f"{known}.") for known in CALLED_BY_COMMANDS)
    }
    assert others == set()
