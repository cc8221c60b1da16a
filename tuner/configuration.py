"""Configuration: a value for each knob, grouped by how the knobs are applied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

Value: TypeAlias = bool | int | float | str

DEVICE_KNOBS = ("power_limit_w", "sm_clock_mhz", "power_profile")
OFFERED_KNOBS = ("request_rate", "concurrency")
THINKING = "thinking"  # a level of the workload: how its chats ask the model to think
STEPS = "steps"  # of the sampler, for each image or video
LOAD_KNOBS = (*OFFERED_KNOBS, THINKING, STEPS)

MODEL = "model"  # a flag: the checkpoint that is served instead of the study's model
UNSET = "unset"  # the option of a choice that leaves the knob to the server's own default


_LONGEST_NAME = 200
_NAMES = {
    "environment": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
    "flags": re.compile(r"[a-z][a-z0-9_]*(?:\.[A-Za-z0-9_-]+)*"),  # flag.field of a structured one
    "device": re.compile("|".join(DEVICE_KNOBS)),
    "load": re.compile("|".join(LOAD_KNOBS)),
}


def check_name(section: str, name: str) -> None:
    """Raise `ValueError` for a name that no such knob has: names go into command lines and files.

    `section` is `flags`, `environment`, `device` or `load`.
    """
    if len(name) > _LONGEST_NAME or _NAMES[section].fullmatch(name) is None:
        raise ValueError(f"{section}: {name[:_LONGEST_NAME]!r} is not the name of one")


def level_name(name: object) -> object:
    """Return a level of thinking as it is named: YAML reads `off` and `on` as false and true."""
    if isinstance(name, bool):
        return "on" if name else "off"
    return str(name) if isinstance(name, int) else name


def _frozen(values: Mapping[str, Value]) -> Mapping[str, Value]:
    return MappingProxyType(dict(values))


@dataclass(frozen=True, slots=True)
class Configuration:
    """Values of knobs. A knob that is absent keeps vLLM's or the GPU's default.

    `flags` are `vllm serve` flags in their Python spelling (`max_num_seqs`), `environment` are
    variables of the server process, `device` holds `power_limit_w`, `sm_clock_mhz` and
    `power_profile`, `load` holds `request_rate` or `concurrency`, `thinking` and `steps`.
    """

    flags: Mapping[str, Value] = field(default_factory=dict)
    environment: Mapping[str, Value] = field(default_factory=dict)
    device: Mapping[str, Value] = field(default_factory=dict)
    load: Mapping[str, Value] = field(default_factory=dict)
    _knobs: dict[str, Value] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for section in ("flags", "environment", "device", "load"):
            object.__setattr__(self, section, _frozen(getattr(self, section)))
        # asked for a hundred times a trial by a report
        knobs = {**self.flags, **self.environment, **self.device, **self.load}
        object.__setattr__(self, "_knobs", knobs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the values: a mapping that cannot be changed cannot be pickled."""
        return Configuration.from_json, (self.to_json(),)

    def knobs(self) -> dict[str, Value]:
        """Every value by its knob's name, flags first."""
        return self._knobs.copy()

    @property
    def offered(self) -> dict[str, Value]:
        """The load knobs that say how requests are offered: `request_rate` or `concurrency`."""
        return {name: value for name, value in self.load.items() if name in OFFERED_KNOBS}

    @property
    def asked(self) -> dict[str, Value]:
        """The load knobs that say what requests ask for: `thinking` and `steps`."""
        return {name: value for name, value in self.load.items() if name not in OFFERED_KNOBS}

    @property
    def thinking(self) -> str | None:
        """The level of thinking; None leaves it to the workload."""
        level = self.load.get(THINKING)
        return None if level is None else str(level)

    @property
    def steps(self) -> int | None:
        """The sampler's steps of an image or video; None leaves them to the workload."""
        steps = self.load.get(STEPS)
        return None if steps is None else int(steps)

    def with_fixed(self, fixed: Configuration) -> Configuration:
        """Return the full configuration: this one's knobs over the settings that all share.

        `fixed` has only flags and environment variables.
        """
        return Configuration(
            flags={**fixed.flags, **self.flags},
            environment={**fixed.environment, **self.environment},
            device=self.device,
            load=self.load,
        )

    def to_json(self) -> dict[str, dict[str, Value]]:
        """Return a JSON-ready form; `from_json` reads it back."""
        return {
            "flags": dict(self.flags),
            "environment": dict(self.environment),
            "device": dict(self.device),
            "load": dict(self.load),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Configuration:
        """Build from the result of `to_json`; raises `ValueError` for what is no configuration."""
        sections: dict[str, dict[str, Value]] = {}
        for section, values in data.items():
            if section not in _NAMES:
                raise ValueError(f"a configuration has no {section!r}")
            for name, value in values.items():
                check_name(section, name)
                if not isinstance(value, bool | int | float | str):
                    raise ValueError(f"{section}: {name} is {type(value).__name__}")
            sections[section] = dict(values)
        return cls(**sections)
