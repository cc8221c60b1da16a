"""YAML files of users: find, read and validate search spaces, workloads and studies."""

from __future__ import annotations

import reprlib
from collections.abc import Container
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tuner.catalog.shipped import Kind, shipped_folder
from tuner.errors import UsageError, unknown_name

Model = TypeVar("Model", bound=BaseModel)

# PyYAML's own exceptions for a value that does not match its tag: `!!bool x`, `2001-13-45`.
_OF_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def find_yaml(kind: Kind, name: str) -> Path:
    """Return the file for `name`: a path, or the name of a shipped file.

    Raises `UsageError` if there is none.
    """
    as_path = Path(name)
    if as_path.suffix in (".yaml", ".yml"):
        if not as_path.is_file():
            raise UsageError(f"no file '{name}'; give the path of a YAML file or a shipped name")
        return as_path
    shipped = {p.stem: p for p in shipped_folder(kind).glob("*.yaml")}
    if name not in shipped:
        what = kind.removesuffix("s").replace("_", " ")
        raise UsageError(unknown_name(what, name, shipped) + " (or write a path ending in .yaml)")
    return shipped[name]


def joined_names(name: str) -> tuple[str, ...]:
    """Return the names that `a+b` joins; the path of a file may contain a plus sign."""
    if Path(name).is_file():
        return (name,)
    return tuple(part.strip() for part in name.split("+"))


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read and validate one file.

    Raises `UsageError` with the file, the field, the value found and the values allowed.
    """
    return validate(str(path), read_mapping(path), model)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read one file that holds a mapping; raises `UsageError`."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read '{path}': {error}") from None
    except RecursionError:
        raise UsageError(f"'{path}' is nested too deeply") from None
    except (yaml.YAMLError, *_OF_VALUES) as error:
        raise UsageError(f"'{path}' is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UsageError(f"'{path}' must hold a mapping (field: value), found {_shown(data)}")
    return data


def validate(
    origin: str | None, data: dict[str, Any], model: type[Model], options: Container[str] = ()
) -> Model:
    """Validate `data` from `origin`, of which `options` were given as such, not by a file.

    Raises `UsageError` as `read_yaml` does.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UsageError(_sentence(origin, error, options)) from None


_EXPECTED = {
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping (field: value)",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
}
_FOLLOWED = ("default_factory_not_called",)


def _sentence(origin: str | None, error: ValidationError, options: Container[str]) -> str:
    # a default that was made of a wrong field says nothing more about that field
    problems = [p for p in error.errors(include_url=False) if p["type"] not in _FOLLOWED]
    first: list[dict[str, Any]] = [dict(p) for p in problems[:3]]
    of_options = [p for p in first if p["loc"] and p["loc"][0] in options]
    shown = [_problem(p, f"--{_field(p).replace('_', '-')}") for p in of_options]
    if of_file := [_problem(p, _field(p)) for p in first if p not in of_options]:
        where = "" if origin is None else f"'{origin}': "
        shown.append(where + "; ".join(of_file))
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return "; ".join(shown) + more


def _problem(problem: dict[str, Any], field: str) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"] and problem["type"] == "value_error":
        return message  # an error of several fields together names them itself
    if problem["type"] == "missing":
        return f"{field}: this field is required"
    if problem["type"] == "extra_forbidden":
        return f"{field}: there is no such field; check its spelling"
    if problem["type"] == "value_error":
        return f"{field}: {message}"
    if problem["type"] in _EXPECTED:
        message = f"expected {_EXPECTED[problem['type']]}"
    return f"{field}: found {_shown(problem['input'])}, {message[0].lower()}{message[1:]}"


def _field(problem: dict[str, Any]) -> str:
    return ".".join(_cut(str(part)) for part in problem["loc"]) or "the file"


def _shown(value: object) -> str:
    return _cut(reprlib.repr(value))  # a few lines of aliases may expand to gigabytes


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
