"""Lease files: the content of a lease, written and read back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.host.process import Owner, owner_from_json, text, whole_number

_FORMAT = 1
_GPU_UUID = re.compile(r"GPU-[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """Power limit, locked SM clock, power profiles. None: unknown as found, untouched as set."""

    power_limit_w: float | None
    sm_clock_mhz: int | None
    power_profiles: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to change one GPU: its limits before the run, and those that the run may set.

    `taken_at` is ISO 8601 in UTC.
    """

    uuid: str
    name: str
    found: LimitSettings
    set: LimitSettings
    owner: Owner
    taken_at: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the state folder: a lease, or the reason why it is none."""

    path: Path
    lease: Lease | None
    problem: str | None


def lease_path(folder: Path, uuid: str) -> Path:
    """Return the file of a GPU's lease."""
    if not _GPU_UUID.fullmatch(uuid):
        raise ValueError(f"expected the UUID of a whole GPU (GPU-...), found {uuid!r}")
    return folder / f"{uuid}.json"


def lease_text(lease: Lease) -> str:
    """Return the content of a lease's file; `read_entry` reads it back."""
    content = {
        "format": _FORMAT,
        "gpu": {"uuid": lease.uuid, "name": lease.name},
        "found": _limits_json(lease.found),
        "set": _limits_json(lease.set),
        "owner": lease.owner.to_json(),
        "taken_at": lease.taken_at,
    }
    return json.dumps(content, indent=2) + "\n"


def read_entry(path: Path) -> Entry | None:
    """Read a file of the state folder; None if it is gone."""
    try:
        lease = _lease(json.loads(path.read_text(encoding="utf-8")))
        if path != lease_path(path.parent, lease.uuid):
            raise ValueError(f"it is about {lease.uuid}, which its name does not say")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Entry(path, None, str(error.strerror))
    except KeyError as error:
        return Entry(path, None, f"it says nothing of {error}")
    except (TypeError, ValueError, RecursionError) as error:  # torn, or not ours
        return Entry(path, None, str(error))
    return Entry(path, lease, None)


def _lease(data: Any) -> Lease:
    if not isinstance(data, dict):
        raise ValueError("expected a JSON object")
    if data["format"] != _FORMAT:
        raise ValueError(f"expected format {_FORMAT}, found {data['format']!r}")
    return Lease(
        text(data["gpu"]["uuid"]),
        text(data["gpu"]["name"]),
        _limits(data["found"]),
        _limits(data["set"]),
        owner_from_json(data["owner"]),
        text(data["taken_at"]),
    )


def _limits_json(limits: LimitSettings) -> dict[str, Any]:
    """Return a form that an older tuner reads too, unless profiles were touched."""
    found = asdict(limits)
    if limits.power_profiles is None:
        del found["power_profiles"]
    return found


def _limits(data: Mapping[str, Any]) -> LimitSettings:
    power_limit_w, sm_clock_mhz = data["power_limit_w"], data["sm_clock_mhz"]
    profiles = data.get("power_profiles")
    if not isinstance(profiles, list | None):
        raise ValueError(f"expected names of power profiles, found {profiles!r}")
    return LimitSettings(
        None if power_limit_w is None else _watts(power_limit_w),
        None if sm_clock_mhz is None else whole_number(sm_clock_mhz),
        None if profiles is None else tuple(text(name) for name in profiles),
    )


def _watts(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"expected watts, found {value!r}")
    return float(value)
