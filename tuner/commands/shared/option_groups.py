"""Option groups: a command takes a dataclass, whose fields are options on the command line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command as Typer reads it: each dataclass parameter becomes its fields.

    Declare a field like a Typer parameter: `Annotated[type, typer.Option(...)]` with a default. A
    field without a default is required.
    """
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    def parameters() -> Iterator[inspect.Parameter]:
        for name, parameter in signature.parameters.items():
            if name in groups:
                yield from _parameters_of(groups[name])
            else:
                yield parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name])

    @functools.wraps(command)
    def flat(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})
        command(**given)

    flattened = list(parameters())
    flat.__signature__ = inspect.Signature(flattened)  # type: ignore[attr-defined]
    flat.__annotations__ = {p.name: p.annotation for p in flattened}
    return flat


def _parameters_of(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=hints[field.name],
        )


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
