"""Settings by name: `KNOB=VALUE` texts, flags and variables that a user writes down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import yaml

from tuner.configuration import (
    DEVICE_KNOBS,
    LOAD_KNOBS,
    MODEL,
    THINKING,
    Configuration,
    Value,
    check_name,
)
from tuner.errors import UsageError
from tuner.host.plain_text import plain_text
from tuner.host.redaction import is_secret_name, redacted
from tuner.servers.registry import flag_rules

GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")

Section = Literal["flags", "environment", "device", "load"]
SECTIONS: tuple[Section, ...] = ("flags", "environment", "device", "load")


def parse_settings(settings: Iterable[str]) -> Configuration:
    """Read `KNOB=VALUE` texts; a name in capitals is an environment variable of the server.

    Raises `UsageError`.
    """
    values: dict[Section, dict[str, Value]] = {section: {} for section in SECTIONS}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"--set '{setting}' is not KNOB=VALUE, e.g. --set power_limit_w=400")
        if any(name in section for section in values.values()):
            raise UsageError(f"--set: '{name}' is given twice")
        if name in GPU_VARIABLES or is_secret_name(name):
            raise UsageError(f"--set: set {name} in the environment of the tuner instead")
        section = section_of(name)
        found = {name: text} if name == THINKING else _flat(setting, name, text)
        try:
            check_name(section, name)
            for inner, value in found.items():
                check_value(inner, value)
        except ValueError as error:
            raise UsageError(f"--set: {error}") from None
        if section == "flags":
            found = {flag: flag_rules().value(flag, value) for flag, value in found.items()}
        values[section].update(found)
    return Configuration(**values)


def configuration_of(values: Mapping[str, Value]) -> Configuration:
    """Return a configuration from knobs by name; see `parse_settings` for the names."""
    sections: dict[Section, dict[str, Value]] = {}
    for name, value in values.items():
        sections.setdefault(section_of(name), {})[name] = value
    return Configuration(**sections)


def section_of(name: str) -> Section:
    """Return the section of a setting: capitals for a variable, else a flag unless it is known."""
    if name in DEVICE_KNOBS:
        return "device"
    if name in LOAD_KNOBS:
        return "load"
    return "environment" if name.isupper() else "flags"


def check_settings(flags: Mapping[str, Value], environment: Mapping[str, Value]) -> None:
    """Raise `ValueError` for flags and variables that a study must not set, or not to that."""
    check_names(flags, environment)
    if MODEL in flags:
        raise ValueError("flags: the model is --model's; what switches it is a knob with choices")
    for name, value in [*flags.items(), *environment.items()]:
        check_value(name, value)


def check_names(flags: Iterable[str], environment: Iterable[str]) -> None:
    """Raise `ValueError` for flags and environment variables that a study must not set."""
    for name in flags:
        _check_flag(name)
    for name in environment:
        _check_variable(name)


def _check_variable(name: str) -> None:
    """Raise `ValueError` for an environment variable that a study must not set."""
    if is_secret_name(name):
        raise ValueError(
            f"environment: {name} looks like a secret, which would be stored with the "
            "study; set it in the environment of the tuner instead"
        )
    check_name("environment", name)
    if name in GPU_VARIABLES:
        raise ValueError(
            f"environment: {name} chooses the GPUs that are measured, too; set it in the "
            "environment of the tuner instead"
        )


def _check_flag(name: str) -> None:
    """Raise `ValueError` for a flag that a study must not set."""
    check_name("flags", name)
    if is_secret_name(name):
        raise ValueError(
            f"flags: {name} looks like a secret, which would be stored with the study; give it to "
            "the server in its environment instead"
        )


def check_value(name: str, value: Value) -> None:
    """Raise `ValueError` for a value that no process can be given, or that holds a secret."""
    if not isinstance(value, str):
        return
    if "\0" in value:
        raise ValueError(f"{name}: the value holds a NUL character, which no process can be given")
    if redacted(value) != plain_text(value):
        raise ValueError(
            f"{name}: the value looks like a secret, which would be stored with the study; set it "
            "in the environment of the tuner instead"
        )


def flat_fields(name: str, value: Any) -> dict[str, Value]:
    """Return a setting as plain values: the fields of a structured flag as `flag.field`.

    Raises `ValueError` for a value that no flag can have.
    """
    if isinstance(value, bool | int | float | str):
        return {name: value}
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{name}: found {type(value).__name__}, a value or fields are needed")
    found: dict[str, Value] = {}
    for field, inner in value.items():
        found |= flat_fields(f"{name}.{field}", inner)
    return found


def _flat(setting: str, name: str, text: str) -> dict[str, Value]:
    try:
        value: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError):
        value = text
    if value is None or isinstance(value, str):
        return {name: text}
    try:
        return flat_fields(name, value)
    except (ValueError, RecursionError):
        raise UsageError(
            f"--set '{setting}': the value must be a number, true, false or a text, or fields as "
            "in flag={field: 4}"
        ) from None
