"""Model catalog: shipped models by name, any other by its Hugging Face config.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tuner.catalog.model_files.model_config import shape_of
from tuner.catalog.model_shape import ModelShape
from tuner.errors import UsageError, unknown_name

__all__ = ["ModelShape", "load_model", "model_names", "shape_of"]


def model_names() -> tuple[str, ...]:
    """Names of the models that need no download."""
    return tuple(sorted(_shipped()))


def load_model(name_or_path: str) -> ModelShape:
    """Return the shape of a shipped model, or of the config.json in a folder.

    Raises `UsageError` for anything else, or for an architecture that the emulator does not know.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return _from_folder(name_or_path, folder)
    shipped = _shipped()
    names = {name.lower(): name for name in shipped}
    if name_or_path.lower() not in names:
        unknown = unknown_name("model", name_or_path, shipped)
        raise UsageError(
            f"{unknown}{'' if unknown.endswith('?') else '.'} It is no folder either: give one "
            "that holds the model's config.json"
        )
    name = names[name_or_path.lower()]
    return shape_of(name, shipped[name])


def _from_folder(name: str, folder: Path) -> ModelShape:
    path, beside = folder / "config.json", folder / "hf_quant_config.json"
    if not path.is_file():
        raise UsageError(f"the folder '{name}' has no config.json; put the model's one there")
    return shape_of(name, _read_object(path), _read_object(beside) if beside.is_file() else None)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # and a number of thousands of digits
        raise UsageError(f"cannot read '{path}': {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"'{path}' must hold a JSON object")
    return config


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    """Read the table; an entry `like: NAME` is another name's configuration with changes."""
    path = Path(__file__).parent / "models.yaml"
    text = path.read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = yaml.load(text, _loader())  # nosec B506
    models: dict[str, dict[str, Any]] = {}
    for name, fields in table.items():
        like = fields.get("like")
        base = {} if like is None else models[like]
        models[name] = {**base, **{k: v for k, v in fields.items() if k != "like"}}
    return models


def _loader() -> type[yaml.SafeLoader]:
    """Return the C parser if PyYAML was built with it: ten times as fast."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
