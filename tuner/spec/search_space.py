"""Search spaces: the knobs of a study, read from YAML."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuner.catalog.yaml_files import find_yaml, read_mapping, validate
from tuner.configuration import DEVICE_KNOBS, LOAD_KNOBS, Configuration, Value
from tuner.errors import UsageError, unknown_name
from tuner.host.redaction import is_secret_name
from tuner.servers.registry import flag_rules
from tuner.spec.device_ranges import DeviceRanges, Share

GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")

Section = Literal["flags", "environment", "device", "load"]
SECTIONS: tuple[Section, ...] = ("flags", "environment", "device", "load")

# A knob changes by a new launch, in the running server, on the GPU, or in the load generator.
Kind = Literal["launch", "live", "device", "load"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Knob(_Model):
    """Fields of every knob; `kind` overrides the kind of a flag (see `SearchSpace.kind`)."""

    kind: Literal["launch", "live"] | None = None


class _Range(_Knob):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
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
    """One of a list of values."""

    type: Literal["choice"]
    choices: tuple[bool | int | float | str, ...] = Field(min_length=2)
    default: bool | int | float | str | None = None

    @model_validator(mode="after")
    def _distinct(self) -> Choice:
        if len({(type(c), c) for c in self.choices}) < len(self.choices):
            raise ValueError("choices must differ")
        return self

    def distribution(self) -> BaseDistribution:
        """Categories."""
        return CategoricalDistribution(self.choices)

    def encode(self, value: Value) -> Value:
        """Return the value itself."""
        return value

    def decode(self, parameter: Value) -> Value:
        """Return the parameter itself."""
        return parameter


KnobType = Annotated[PowerOfTwo | Integer | Real | Choice, Field(discriminator="type")]


class Fixed(_Model):
    """Settings that all configurations of the study share, including the baseline."""

    flags: dict[str, bool | int | float | str] = {}
    environment: dict[str, bool | int | float | str] = {}


class SearchSpace(_Model):
    """Search space: the knobs of a study, grouped by how they are applied.

    A knob's `default` is the value that vLLM (or the GPU) uses if the knob is not set; trial 0
    leaves every knob unset. Without a `default`, the value that the server or device reports is
    used.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str = ""
    fixed: Fixed = Fixed()
    flags: dict[str, KnobType] = {}
    environment: dict[str, KnobType] = {}
    device: dict[str, KnobType] = {}
    load: dict[str, KnobType] = {}

    @model_validator(mode="after")
    def _names(self) -> SearchSpace:
        for section, allowed in (("device", DEVICE_KNOBS), ("load", LOAD_KNOBS)):
            for name in getattr(self, section):
                if name not in allowed:
                    raise ValueError(f"{section}: " + unknown_name("knob", name, allowed))
        for name in [*self.environment, *self.fixed.environment]:
            if is_secret_name(name):
                raise ValueError(
                    f"environment: {name} looks like a secret, which would be stored with the "
                    "study; set it in the environment of the tuner instead"
                )
            if name in GPU_VARIABLES:
                raise ValueError(
                    f"environment: {name} chooses the GPUs that are measured, too; set it in the "
                    "environment of the tuner instead"
                )
        for section, name, knob in self.knobs():
            _check_kind(section, name, knob)
        for name, knob in self.load.items():
            if isinstance(knob, Choice) or knob.low <= 0:
                raise ValueError(f"load.{name}: needs a range above 0")
        names = [name for _, name, _ in self.knobs()]
        if not names:
            raise ValueError("there is no knob; write at least one under flags, environment, ...")
        twice = {n for n in names if names.count(n) > 1}
        both = (set(self.flags) & set(self.fixed.flags)) | (
            set(self.environment) & set(self.fixed.environment)
        )
        if twice or both:
            raise ValueError(f"named twice: {', '.join(sorted(twice | both))}")
        return self

    def knobs(self) -> Iterator[tuple[Section, str, PowerOfTwo | Integer | Real | Choice]]:
        """Yield (section, name, knob) in a fixed order."""
        for section in SECTIONS:
            for name, knob in getattr(self, section).items():
                yield section, name, knob

    def kind(self, name: str) -> Kind:
        """Return a knob's kind; raises `KeyError` for an unknown knob."""
        section, knob = next(((s, k) for s, n, k in self.knobs() if n == name), (None, None))
        if section is None or knob is None:
            raise KeyError(name)
        if section in ("device", "load"):
            return section
        return knob.kind or ("live" if _can_be_live(section, name, knob) else "launch")

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution of each parameter."""
        return {parameter_name(name, knob): knob.distribution() for _, name, knob in self.knobs()}

    def configuration(self, parameters: dict[str, Value]) -> Configuration:
        """Return the configuration that corresponds to Optuna's parameters."""
        values: dict[str, dict[str, Value]] = {section: {} for section in SECTIONS}
        for section, name, knob in self.knobs():
            values[section][name] = knob.decode(parameters[parameter_name(name, knob)])
        return Configuration(**values)

    def baseline_parameters(self, defaults: dict[str, Value]) -> dict[str, Value]:
        """Return Optuna's parameters nearest to the default configuration.

        `defaults` are the values that server and device report; a knob's own `default` overrides
        them. Raises `UsageError` if neither gives one or it lies outside the range: trial 0 would
        then be recorded at a point where it was not measured.
        """
        parameters: dict[str, Value] = {}
        for section, name, knob in self.knobs():
            default = knob.default if knob.default is not None else defaults.get(name)
            field = f"{section}.{name}.default"
            if default is None:
                raise UsageError(
                    f"search space '{self.name}': {field}: the default of '{name}' is not known "
                    "here; write down what the server uses when it is not set"
                )
            encoded = knob.encode(default)
            if not _contains(knob.distribution(), encoded):
                raise UsageError(
                    f"search space '{self.name}': {field}: found {default}, outside the knob's own "
                    "range; widen low..high (or choices) so that it holds the default"
                )
            parameters[parameter_name(name, knob)] = encoded
        return parameters

    def sha256(self) -> str:
        """Return a hash of the knobs and fixed settings; descriptions do not count."""
        data = self.model_dump(mode="json", exclude={"description"})
        for section, name, knob in self.knobs():
            if knob.kind is None:
                del data[section][name]["kind"]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _check_kind(section: Section, name: str, knob: PowerOfTwo | Integer | Real | Choice) -> None:
    """Raise `ValueError` if the knob cannot have its `kind`."""
    if knob.kind is not None and section in ("device", "load"):
        raise ValueError(f"{section}.{name}: kind is for flags; leave it out")
    if knob.kind == "live" and not _can_be_live(section, name, knob):
        raise ValueError(
            f"{section}.{name}: cannot be changed in a running vLLM, only ranges of "
            f"{' and '.join(_live_flags())} can; leave `kind: live` out"
        )


def _can_be_live(section: Section, name: str, knob: PowerOfTwo | Integer | Real | Choice) -> bool:
    return section == "flags" and name in _live_flags() and isinstance(knob, PowerOfTwo | Integer)


def _live_flags() -> tuple[str, ...]:
    limits = flag_rules().limits
    return () if limits is None else limits.flags


def _contains(distribution: BaseDistribution, value: Value) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low <= float(value) <= distribution.high


def parameter_name(name: str, knob: PowerOfTwo | Integer | Real | Choice) -> str:
    """Return the knob's name in Optuna, which marks an exponent as such."""
    return f"log2_{name}" if isinstance(knob, PowerOfTwo) else name


def load_space(name: str, ranges: Callable[[], DeviceRanges] | None = None) -> SearchSpace:
    """Read a shipped search space or a YAML file.

    `ranges` returns the card's ranges; it is called only if a device knob is given as a share of
    them. Raises `UsageError`, also for a share without `ranges`.
    """
    path = find_yaml("search_spaces", name)
    data = read_mapping(path)
    device = data.get("device")
    if isinstance(device, dict):
        data["device"] = _without_shares(str(path), device, ranges)
    return validate(str(path), data, SearchSpace)


def _without_shares(
    origin: str, device: dict[str, Any], ranges: Callable[[], DeviceRanges] | None
) -> dict[str, Any]:
    """Return the device knobs with all shares resolved to watts or MHz."""
    shares = {
        name: validate(f"{origin}: device.{name}", knob, Share)
        for name, knob in device.items()
        if isinstance(knob, dict) and knob.get("type") == "share"
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
