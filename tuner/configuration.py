"""Configuration: a value for each knob, grouped by how the knobs are applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

Value: TypeAlias = bool | int | float | str

DEVICE_KNOBS = ("power_limit_w", "sm_clock_mhz", "power_profile")
LOAD_KNOBS = ("request_rate", "concurrency")

UNSET = "unset"  # the option of a choice that leaves the knob to the server's own default


def _frozen(values: Mapping[str, Value]) -> Mapping[str, Value]:
    return MappingProxyType(dict(values))


@dataclass(frozen=True, slots=True)
class Configuration:
    """Values of knobs. A knob that is absent keeps vLLM's or the GPU's default.

    `flags` are `vllm serve` flags in their Python spelling (`max_num_seqs`), `environment` are
    variables of the server process, `device` holds `power_limit_w`, `sm_clock_mhz` and
    `power_profile`, `load` holds `request_rate` or `concurrency`.
    """

    flags: Mapping[str, Value] = field(default_factory=dict)
    environment: Mapping[str, Value] = field(default_factory=dict)
    device: Mapping[str, Value] = field(default_factory=dict)
    load: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for section in ("flags", "environment", "device", "load"):
            object.__setattr__(self, section, _frozen(getattr(self, section)))

    def knobs(self) -> dict[str, Value]:
        """Every value by its knob's name, flags first."""
        return {**self.flags, **self.environment, **self.device, **self.load}

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
        """Build from the result of `to_json`."""
        return cls(**{section: dict(values) for section, values in data.items()})
