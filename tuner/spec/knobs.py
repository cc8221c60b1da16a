"""Knobs of a search space: their types in YAML, and how Optuna samples each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuner.configuration import THINKING, UNSET, Value, level_name

_SAMPLES = 32  # of a range without steps, where single values are looked at
_LARGEST = 2**63  # what Optuna's tables, and vLLM, can hold


class SpaceModel(BaseModel):
    """A part of a search space file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Knob(SpaceModel):
    """Fields of every knob; `kind` overrides the kind of a flag (see `SearchSpace.kind`)."""

    kind: Literal["launch", "live"] | None = None


class _Range(_Knob):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if max(abs(self.low), abs(self.high)) > _LARGEST:
            raise ValueError("low and high must be between -2**63 and 2**63")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        return self


class PowerOfTwo(_Range):
    """A power of two from low to high; the sampler searches its exponent."""

    type: Literal["power_of_two"]
    low: int = Field(ge=1)
    high: int = Field(ge=1)
    default: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _powers(self) -> PowerOfTwo:
        for name in ("low", "high"):
            value = getattr(self, name)
            if value & (value - 1):
                raise ValueError(f"{name}: found {value}, which is not a power of two")
        return self

    def values(self) -> tuple[Value, ...]:
        """Return every value."""
        return tuple(1 << k for k in range(self.low.bit_length() - 1, self.high.bit_length()))

    def distribution(self) -> BaseDistribution:
        """Integer distribution of the exponent."""
        return IntDistribution(int(math.log2(self.low)), int(math.log2(self.high)))

    def encode(self, value: Value) -> Value:
        """Return the exponent nearest to `value`."""
        return round(math.log2(float(value)))

    def decode(self, parameter: Value) -> Value:
        """Return two to the power of the parameter."""
        return 1 << int(parameter)


class Integer(_Range):
    """An integer from low to high in steps."""

    type: Literal["int"]
    low: int
    high: int
    step: int = Field(default=1, ge=1)
    default: int | None = None

    @model_validator(mode="after")
    def _divisible(self) -> Integer:
        if (self.high - self.low) % self.step:
            raise ValueError(f"high - low must be a multiple of step ({self.step})")
        return self

    def values(self) -> tuple[Value, ...]:
        """Return every value."""
        return tuple(range(self.low, self.high + 1, self.step))

    def distribution(self) -> BaseDistribution:
        """Integer distribution with a step."""
        return IntDistribution(self.low, self.high, step=self.step)

    def encode(self, value: Value) -> Value:
        """Return the grid point nearest to `value`."""
        return self.low + self.step * round((float(value) - self.low) / self.step)

    def decode(self, parameter: Value) -> Value:
        """Return the parameter itself."""
        return int(parameter)


class Real(_Range):
    """A number from low to high, in steps if `step` is given."""

    type: Literal["float"]
    step: float | None = Field(default=None, gt=0)
    log: bool = False
    default: float | None = None

    @model_validator(mode="after")
    def _grid(self) -> Real:
        if self.step is not None and self.log:
            raise ValueError("log and step exclude each other")
        if self.log and self.low <= 0:
            raise ValueError("log needs low > 0")
        if self.step is not None:
            steps = (self.high - self.low) / self.step
            if abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"high - low must be a multiple of step ({self.step:g})")
        return self

    def values(self) -> tuple[Value, ...]:
        """Return every value of a grid, else a few from low to high."""
        steps = _SAMPLES if self.step is None else round((self.high - self.low) / self.step)
        width = (self.high - self.low) / steps
        return tuple(self.decode(self.low + k * width) for k in range(steps + 1))

    def distribution(self) -> BaseDistribution:
        """Float distribution, on a grid or log-uniform if set so."""
        return FloatDistribution(self.low, self.high, step=self.step, log=self.log)

    def encode(self, value: Value) -> Value:
        """Return the grid point nearest to `value`."""
        if self.step is None:
            return float(value)
        return self.decode(self.low + self.step * round((float(value) - self.low) / self.step))

    def decode(self, parameter: Value) -> Value:
        """Return the parameter without the rounding error of a grid (0.7000000000000001)."""
        return round(float(parameter), 10)


class Choice(_Knob):
    """One of a list of values; `unset` among them leaves the knob to the server's own default."""

    type: Literal["choice"]
    choices: tuple[bool | int | float | str, ...] = Field(min_length=2)
    default: bool | int | float | str | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Choice:
        if len({(type(c), c) for c in self.choices}) < len(self.choices):
            raise ValueError("choices must differ")
        return self

    def values(self) -> tuple[Value, ...]:
        """Return every value."""
        return self.choices

    def distribution(self) -> BaseDistribution:
        """Categories."""
        return CategoricalDistribution(self.choices)

    def encode(self, value: Value) -> Value:
        """Return the value itself."""
        return value

    def decode(self, parameter: Value) -> Value:
        """Return the parameter itself."""
        return parameter


Scalar: TypeAlias = PowerOfTwo | Integer | Real | Choice
ScalarType = Annotated[Scalar, Field(discriminator="type")]
Variant: TypeAlias = dict[str, ScalarType | bool | int | float | str]


class Variants(_Knob):
    """A structured flag, such as `speculative_config`: one of several named sets of its fields.

    A field of a variant is a value or a knob of its own, which exists under that variant only. A
    variant without fields leaves the flag unset.
    """

    type: Literal["variants"]
    variants: dict[str, Variant] = Field(min_length=2)

    @model_validator(mode="after")
    def _distinct(self) -> Variants:
        if self.kind == "live":
            raise ValueError("a structured flag cannot be changed in a running server")
        empty = [name for name, fields in self.variants.items() if not fields]
        if len(empty) > 1:
            raise ValueError(f"{' and '.join(empty)} both leave the flag unset")
        return self

    def values(self) -> tuple[Value, ...]:
        """Return the names of the variants."""
        return tuple(self.variants)

    def distribution(self) -> BaseDistribution:
        """Categories: the names of the variants."""
        return CategoricalDistribution(tuple(self.variants))

    def encode(self, value: Value) -> Value:
        """Return the variant's name itself."""
        return value

    def decode(self, parameter: Value) -> Value:
        """Return the parameter itself."""
        return parameter

    def variant_of(self, values: Mapping[str, Value]) -> str | None:
        """Return the variant with exactly these fields, by name; None if there is none.

        Fixed fields must be equal; those that are knobs may have any value.
        """
        for name, fields in self.variants.items():
            fixed = {k: v for k, v in fields.items() if not isinstance(v, BaseModel)}
            if fields.keys() == values.keys() and all(values[k] == v for k, v in fixed.items()):
                return name
        return None


Knob: TypeAlias = Scalar | Variants
KnobType = Annotated[Knob, Field(discriminator="type")]


def with_level_names(load: Any) -> Any:
    """Return a file's load knobs with levels of thinking as texts: YAML reads `off` as false."""
    knob = load.get(THINKING) if isinstance(load, Mapping) else None
    if not isinstance(knob, Mapping):
        return load
    named = {**knob}
    if isinstance(named.get("choices"), list | tuple):
        named["choices"] = [level_name(choice) for choice in named["choices"]]
    if named.get("default") is not None:
        named["default"] = level_name(named["default"])
    return {**load, THINKING: named}


def check_form(section: str, name: str, knob: Knob) -> None:
    """Raise `ValueError` for a device or load knob that needs choices, or a range, and has none."""
    if name == "power_profile" and not isinstance(knob, Choice):
        raise ValueError("device.power_profile: needs choices, the names of profiles")
    if name == THINKING:
        if not isinstance(knob, Choice) or not all(isinstance(c, str) for c in knob.choices):
            raise ValueError("load.thinking: needs choices, names of the workload's levels")
    elif section == "load" and (isinstance(knob, Choice | Variants) or knob.low <= 0):
        raise ValueError(f"load.{name}: needs a range above 0")


def parameter_name(name: str, knob: Knob) -> str:
    """Return the knob's name in Optuna, which marks an exponent as such."""
    return f"log2_{name}" if isinstance(knob, PowerOfTwo) else name


def is_unset_option(knob: Knob) -> bool:
    """Say whether the knob can be left to the server's own default."""
    return isinstance(knob, Choice) and UNSET in knob.choices


def contains(knob: Knob, parameter: Value) -> bool:
    """Say whether the knob's range contains a parameter."""
    distribution = knob.distribution()
    if isinstance(distribution, CategoricalDistribution):
        return parameter in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low <= float(parameter) <= distribution.high
