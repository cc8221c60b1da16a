"""Names of a language model's weights, and the lists of a quantization that name some of them.

A name in such a list is one of three: a regular expression after `re:`, a pattern with `*`, or
whole components of a path (`self_attn`, `model.layers.3.mlp.gate`). Paths are those of the language
model: `visual.…` and `mtp.…` name none of its modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tuner.errors import UsageError

_PREFIXES = ("model.", "", "model.language_model.", "language_model.model.", "backbone.")
_OF_LANGUAGE = frozenset(
    ("model", "language_model", "backbone", "transformer", "decoder", "text_model", "llm")
)
_EVERY_LINEAR = frozenset(("Linear", "FusedMoE", "LinearBase"))


@dataclass(frozen=True, slots=True)
class Module:
    """One matrix of the language model, or the same one of each expert of a layer.

    Attributes:
        part: the kind of layer that it belongs to.
        paths: its names without the model's prefix, also those that vLLM's fused modules have.
        parameters: of all experts where there are several.
    """

    part: str
    paths: tuple[str, ...]
    parameters: int


@dataclass(slots=True)
class ModuleNames:
    """A list of names; `matches` says whether a module is among them."""

    names: Sequence[str]
    _runs: set[str] = field(default_factory=set, init=False)
    _patterns: list[re.Pattern[str]] = field(default_factory=list, init=False)
    _every_linear: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Sort the names by kind; raises `UsageError` for an invalid regular expression."""
        for name in self.names:
            if name.startswith("re:"):
                self._patterns.append(_compiled(name.removeprefix("re:")))
            elif name in _EVERY_LINEAR:
                self._every_linear = True
            elif "*" in name or "?" in name:
                self._patterns.append(_compiled(_wildcard(name)))
            else:
                self._runs.add(_without_prefix(name))

    def matches(self, module: Module) -> bool:
        """Say whether the list names the module, or something that it lies in."""
        if self._every_linear:
            return True
        return any(self._names(path) for path in module.paths)

    def unknown(self, modules: Iterable[Module]) -> str | None:
        """Return the first plain word of the list that is neither a class nor a known module."""
        words = [n for n in self.names if "." not in n and n not in _EVERY_LINEAR and "*" not in n]
        if not words:
            return None
        known = {part for module in modules for path in module.paths for part in path.split(".")}
        return next((word for word in words if word not in known), None)

    def _names(self, path: str) -> bool:
        if self._runs:
            parts = path.split(".")
            for first in range(len(parts)):
                for last in range(first + 1, len(parts) + 1):
                    if ".".join(parts[first:last]) in self._runs:
                        return True
        return any(
            pattern.match(prefix + path) for pattern in self._patterns for prefix in _PREFIXES
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"'{pattern}' is no regular expression: {error}") from None


def _wildcard(name: str) -> str:
    """Return an expression for a path that matches, and for what lies in it."""
    text = re.escape(name).replace(r"\*", ".*").replace(r"\?", ".")
    return rf"{text}(\..*)?$"


def _without_prefix(name: str) -> str:
    """Return a name of the language model from `layers` on; any other unchanged."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _OF_LANGUAGE:
        parts = parts[1:]
    return ".".join(parts)
