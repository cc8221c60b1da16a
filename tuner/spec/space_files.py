"""Search space files: read one or several joined ones, with device ranges as shares of the card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tuner.catalog.yaml_files import find_yaml, joined_names, read_mapping, validate
from tuner.configuration import DEVICE_KNOBS
from tuner.errors import UsageError, unknown_name
from tuner.spec.device_ranges import DeviceRanges, Share
from tuner.spec.settings import SECTIONS

_JOIN = "join"
_BY_NAME = (*SECTIONS, "fixed")


class _Joined(BaseModel):
    """A file that only names other spaces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    join: tuple[str, ...] = Field(min_length=1)


def read_space(name: str, ranges: Callable[[], DeviceRanges] | None) -> tuple[str, dict[str, Any]]:
    """Return where a space comes from, and its fields; `a+b` joins several spaces.

    A knob that two of them have must be the same in both. `ranges` returns the card's ranges; it is
    called only if a device knob is given as a share of them. Raises `UsageError`.
    """
    names = joined_names(name)
    files = [file for part in names for file in _read(part)]
    if len(names) == len(files) == 1:
        ((origin, data),) = files
    else:
        origin, data = name, _joined(files)
        data["name"] = "+".join(Path(part).stem for part in names)
    device = data.get("device")
    if isinstance(device, dict):
        data["device"] = _without_shares(origin, device, ranges)
    return origin, data


def _read(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the file of a space as (path, contents), or all files that it joins."""
    path = find_yaml("search_spaces", name)
    data = read_mapping(path)
    if _JOIN not in data:
        return [(str(path), data)]
    joined = validate(str(path), data, _Joined)
    found: list[tuple[str, dict[str, Any]]] = []
    for other in joined.join:
        other_path = find_yaml("search_spaces", other)
        other_data = read_mapping(other_path)
        if _JOIN in other_data:
            raise UsageError(
                f"'{path}': join: '{other}' joins others itself; name those others here"
            )
        found.append((str(other_path), other_data))
    return found


def _joined(files: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return the contents of several files as those of one."""
    whole: dict[str, Any] = {}
    for path, data in files:
        for field, value in data.items():
            if field in ("name", "description"):
                continue
            if field == "relations" and isinstance(value, list):
                whole["relations"] = [*whole.get("relations", []), *value]
            elif field in _BY_NAME and isinstance(value, dict):
                whole[field] = _merged(path, field, whole.get(field, {}), value)
            else:
                whole[field] = value  # is refused, in the words for a single file
    return whole


def _merged(
    path: str, field: str, known: Mapping[str, Any], added: Mapping[str, Any]
) -> dict[str, Any]:
    if field == "fixed":
        return {
            part: _merged(path, f"fixed.{part}", known.get(part, {}), values)
            if isinstance(values, dict)
            else values
            for part, values in {**known, **added}.items()
        }
    for name in known.keys() & added.keys():
        if known[name] != added[name]:
            raise UsageError(
                f"'{path}': {field}.{name} is another one than in a space that it is joined with; "
                "make them the same, or leave one of them out"
            )
    return {**known, **added}


def _without_shares(
    origin: str, device: dict[str, Any], ranges: Callable[[], DeviceRanges] | None
) -> dict[str, Any]:
    """Return the device knobs with all shares resolved to watts or MHz."""
    shares = {
        name: validate(f"{origin}: device.{name}", knob, Share)
        for name, knob in device.items()
        if isinstance(knob, dict) and (knob.get("type") == "share" or "share" in knob)
    }
    if not shares:
        return device
    card = {} if ranges is None else ranges()
    for name in shares:
        if name not in DEVICE_KNOBS:
            raise UsageError(f"'{origin}': device: " + unknown_name("knob", name, DEVICE_KNOBS))
        if name not in card:
            raise UsageError(
                f"'{origin}': device.{name} is a share of the card's own range, which is not known "
                "here; write low, high and step in watts or MHz"
            )
    return {**device, **{name: share.on(card[name]) for name, share in shares.items()}}
