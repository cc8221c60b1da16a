"""Baseline: the user's own flags, with which everything is compared instead of vLLM's defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from tuner.catalog.yaml_files import read_mapping
from tuner.configuration import Configuration, Value
from tuner.errors import UsageError
from tuner.spec.settings import check_settings, flat_fields, parse_settings

_SECTIONS = ("flags", "environment")


class Baseline(BaseModel):
    """Flags and variables of the server that is used today.

    A file may have sections `flags` and `environment`, or be one for `vllm serve --config`: flags
    only, with dashes or underscores. Fields of a structured flag are `flag.field`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    flags: dict[str, bool | int | float | str] = {}
    environment: dict[str, bool | int | float | str] = {}

    @model_validator(mode="before")
    @classmethod
    def _sections(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if not data.keys() & set(_SECTIONS):
            _check_false(data)
            data = {"flags": data}
        flags = data.get("flags", {})
        if not isinstance(flags, Mapping):
            return data
        flat: dict[str, Value] = {}
        for name, value in flags.items():
            base, dot, rest = str(name).partition(".")
            flat |= flat_fields(f"{base.replace('-', '_')}{dot}{rest}", value)
        return {**data, "flags": flat}

    @field_validator("flags")
    @classmethod
    def _without_negations(cls, flags: dict[str, Value]) -> dict[str, Value]:
        """Read `no-flag: true`, as vLLM's files write it, as `flag: false`."""
        check_settings(flags, {})
        return {
            (name.removeprefix("no_") if name.startswith("no_") and value is True else name): (
                False if name.startswith("no_") and value is True else value
            )
            for name, value in flags.items()
        }

    @field_validator("environment")
    @classmethod
    def _allowed(cls, environment: dict[str, Value]) -> dict[str, Value]:
        check_settings({}, environment)
        return environment

    @property
    def configuration(self) -> Configuration:
        """The flags and variables as a configuration."""
        return Configuration(flags=self.flags, environment=self.environment)


def _check_false(flags: Mapping[Any, Any]) -> None:
    """Refuse a `false` that `vllm serve --config` drops without a word (seen with vLLM 0.33)."""
    for name, value in flags.items():
        if value is False and "_" in str(name):
            dashes = str(name).replace("_", "-")
            raise ValueError(
                f"{name}: false does nothing in a file for vllm serve --config, which drops a "
                f"false spelled with underscores: write {dashes}: false, or remove the line"
            )


def baseline_of(data: Any, settings: Iterable[str]) -> Any:
    """Return the fields of a baseline: a file or fields, and `KNOB=VALUE` texts over them.

    Raises `UsageError`.
    """
    said = parse_settings(settings)
    if others := [*said.device, *said.load]:
        raise UsageError(
            f"--set {others[0]}: the baseline of a study is flags and variables of the server; the "
            "GPU's limits and the load are not part of it"
        )
    if isinstance(data, str):
        data = read_mapping(Path(data))
    if not said.knobs():
        return data
    try:
        given = Baseline.model_validate(data or {})
    except ValueError:
        return data  # is refused with the other fields, in the same words
    return {
        "flags": {**given.flags, **said.flags},
        "environment": {**given.environment, **said.environment},
    }
