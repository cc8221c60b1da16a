"""One door to the GPUs: a vendor's library is named in the vendor's own folder alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tuner

ROOT = Path(tuner.__file__).parent
DOOR = ROOT / "devices/open.py"
VENDORS = [folder for folder in (ROOT / "devices").iterdir() if folder.name in ("nvidia", "amd")]
LIBRARIES = ("pynvml", "amdsmi")
OUTSIDE = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not any(path.is_relative_to(vendor) for vendor in VENDORS)
]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def is_of_a_vendor(name: str) -> bool:
    folders = [f"tuner.devices.{vendor.name}." for vendor in VENDORS]
    return name.split(".")[0] in LIBRARIES or any(f"{name}.".startswith(f) for f in folders)


def test_nothing_but_the_door_imports_a_vendors_folder() -> None:
    found = {path: {n for n in imported(path) if is_of_a_vendor(n)} for path in OUTSIDE}
    assert [path for path, names in found.items() if names] == [DOOR]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_vendors_library_is_not_named_outside_its_folder(library: str) -> None:
    assert [path for path in OUTSIDE if library in path.read_text()] == []
