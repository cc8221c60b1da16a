"""No message tells a user to install a package that this project neither is nor depends on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOLD = re.compile(r"pip3? install ([^`\"\n#|;&)]+)")


def name_of(requirement: str) -> str:
    """Return the name in a requirement, as indexes compare them."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found.group()).lower()


DEPENDENCIES = {
    name_of(requirement)
    for requirement in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
} - {PROJECT["name"]}  # the name is not ours on any index
EXTRAS = set(PROJECT["optional-dependencies"])


def told() -> Iterator[tuple[str, str]]:
    """Yield (file, word) for each word that a message or a page tells to install."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tuner/**/*.py")]
    for path in pages:
        for found in TOLD.finditer(path.read_text(encoding="utf-8")):
            for word in found[1].replace("'", " ").replace('"', " ").split():
                if not word.startswith(("-", "{")):  # an option; names out of our own metadata
                    yield str(path.relative_to(ROOT)), word


def is_known(word: str) -> bool:
    """Say whether it is this folder, with an extra that there is, or a dependency."""
    if own := re.fullmatch(r"\.(?:\[([\w,]+)\])?", word):
        return set((own[1] or "").split(",")) - {""} <= EXTRAS
    return name_of(word) in DEPENDENCIES


def test_what_is_told_to_be_installed_is_ours_or_a_dependency() -> None:
    words = list(told())
    assert {"vllm", "pyarrow", "psycopg[binary]", "."} <= {word for _, word in words}
    assert [(file, word) for file, word in words if not is_known(word)] == []


@pytest.mark.parametrize("word", ["tuner", "tuner[vllm]", ".[no-such-extra]", "somebody-elses"])
def test_a_name_that_is_not_ours_would_be_found(word: str) -> None:
    assert not is_known(word)
