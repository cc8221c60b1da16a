"""Prompts for images and videos: drawn from a few lists, or read from a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuner.errors import UsageError

_MOST_BYTES = 64 * 2**20
LONGEST = 20_000  # characters

_SUBJECTS = (
    "a lighthouse", "an old bicycle", "a red fox", "a harbour with fishing boats", "a steam train",
    "a bowl of ramen", "a violinist", "two children with a kite", "a glass greenhouse",
    "a mountain hut", "a sleeping cat", "a market stall with oranges", "a robot gardener",
    "a stone bridge", "a hot-air balloon", "a chess player",
)  # fmt: skip
_PLACES = (
    "by the sea", "in a snowy forest", "on a busy street", "in an empty museum", "at a night fair",
    "in a desert canyon", "under cherry trees", "on a rainy rooftop", "in a sunlit kitchen",
    "beside a frozen lake",
)  # fmt: skip
_LIGHTS = (
    "at dawn", "at noon", "in golden evening light", "under a full moon", "in thick fog",
    "in soft studio light",
)  # fmt: skip
_STYLES = (
    "a photograph with shallow depth of field", "an oil painting", "a watercolour",
    "a detailed pencil drawing", "a film still", "a low-polygon render",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PromptList:
    """The prompts of a file in its order, with the hash of its bytes."""

    prompts: tuple[str, ...]
    sha256: str


def drawn_prompt(rng: np.random.Generator) -> str:
    """Return one of a few thousand prompts."""
    lists = (_SUBJECTS, _PLACES, _LIGHTS, _STYLES)
    subject, place, light, style = (one[int(rng.integers(len(one)))] for one in lists)
    return f"{subject[0].upper()}{subject[1:]} {place} {light}, {style}"


def read_text(path: Path) -> str:
    """Read a text of a bounded size; raises `UsageError`."""
    return _decoded(path, _bytes_of(path))


def read_prompts(path: Path) -> PromptList:
    """Read a list of prompts; raises `UsageError` that names the line."""
    data = _bytes_of(path)
    read = _of_json if path.suffix == ".jsonl" else prompt_text
    prompts = tuple(
        read(f"'{path}', line {number}", line)
        for number, line in enumerate(_decoded(path, data).splitlines(), 1)
        if line.strip()
    )
    if not prompts:
        raise UsageError(f"'{path}' has no prompts")
    return PromptList(prompts, hashlib.sha256(data).hexdigest())


def prompt_text(where: str, line: str) -> str:
    """Return a prompt without blanks around it; raises `UsageError` for one that is too long."""
    if len(line) > LONGEST:
        raise UsageError(f"{where}: a prompt of {len(line)} characters; {LONGEST} are allowed")
    return line.strip()


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the prompts '{path}': {error.strerror or error}") from None
    if len(data) > _MOST_BYTES:
        raise UsageError(f"'{path}' has more than {_MOST_BYTES >> 20} MiB of prompts")
    return data


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"the prompts '{path}' are not UTF-8 text") from None


def _of_json(where: str, line: str) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError(f"{where}: expected a JSON object with `prompt`") from None
    prompt = found.get("prompt") if isinstance(found, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f"{where}: expected a JSON object with `prompt`, a text")
    return prompt_text(where, prompt)
