"""Every path that the pages name exists: links, `path.py`, and the table of CONTRIBUTING."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
TOP = ("tuner", "tests", "benchmarks", "docs", "search_spaces", "workloads", "results", ".ci")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# `tuner/metrics.py`, `tests/search/`, `tuner/catalog/gpus/*.yaml`; NAME stands for any name
PATH = re.compile(rf"`((?:{'|'.join(map(re.escape, TOP))})/[\w./*-]*)(?:::\w+)?`")
TEST = re.compile(r"`((?:[a-z]\w*/)+test_\w+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_a_file(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [link for link in links if link and "://" not in link and "mailto:" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_paths_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = {path.replace("NAME", "*") for path in PATH.findall(text)}
    written_by_runs = {"results/tuner.db", "results/demo.db"}
    assert [path for path in sorted(named - written_by_runs) if not any(ROOT.glob(path))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_tests_that_a_page_names_are_there(page: Path) -> None:
    for path, function in TEST.findall(page.read_text(encoding="utf-8")):
        file = ROOT / path if path.startswith("tests/") else ROOT / "tests" / path
        assert file.is_file(), path
        assert not function or f"def {function}(" in file.read_text(encoding="utf-8"), function
