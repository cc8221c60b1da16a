"""Search space: the knobs of a study, and the relations between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias

from optuna.distributions import BaseDistribution
from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from tuner.catalog.yaml_files import validate
from tuner.configuration import DEVICE_KNOBS, LOAD_KNOBS, UNSET, Configuration, Value
from tuner.errors import UsageError, unknown_name
from tuner.servers.registry import flag_rules
from tuner.spec.device_ranges import DeviceRanges
from tuner.spec.knobs import (
    Integer,
    Knob,
    KnobType,
    PowerOfTwo,
    SpaceModel,
    Variants,
    check_form,
    contains,
    is_unset_option,
    parameter_name,
    with_level_names,
)
from tuner.spec.relations import GPUS, Relation
from tuner.spec.settings import SECTIONS, Section, check_names, check_settings, flat_fields
from tuner.spec.space_files import read_space

# A knob changes by a new launch, in the running server, on the GPU, or in the load generator.
Kind = Literal["launch", "live", "device", "load"]
Parameters: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of Optuna's parameters.

    Attributes:
        name: in Optuna.
        section: where its value stands in a configuration.
        setting: the name of its value there: that of the knob, or `flag.field` of a structured
            flag.
        knob: what it is a value of.
        under: the parameter and the variant that it exists under; None if it always exists.
    """

    name: str
    section: Section
    setting: str
    knob: Knob
    under: tuple[str, str] | None = None

    def is_active(self, parameters: Parameters) -> bool:
        """Say whether it exists beside the parameters that stand before it."""
        return self.under is None or parameters.get(self.under[0]) == self.under[1]


class Fixed(SpaceModel):
    """Settings that all configurations of the study share, including the baseline."""

    flags: dict[str, bool | int | float | str] = Field(default={})
    environment: dict[str, bool | int | float | str] = Field(default={})

    @field_validator("flags", mode="before")
    @classmethod
    def _as_the_server_reads_them(cls, flags: Any) -> Any:
        """Read fields of structured flags (`compilation_config: {mode: 3}`) and numbers as 16k."""
        if not isinstance(flags, Mapping):
            return flags
        found: dict[str, Any] = {}
        for name, value in flags.items():
            if not isinstance(name, str) or value is None or isinstance(value, list):
                found[name] = value
                continue
            for flag, inner in flat_fields(name, value).items():
                found[flag] = _read(flag, inner)
        return found


def _read(flag: str, value: Value) -> Value:
    try:
        return flag_rules().value(flag, value)
    except UsageError as error:
        raise ValueError(str(error)) from None


class SearchSpace(SpaceModel):
    """Search space: the knobs of a study, grouped by how they are applied.

    A knob's `default` is the value that vLLM (or the GPU) uses if the knob is not set; trial 0
    leaves every knob unset, unless the study has a baseline of its own. Without a `default`, the
    value that the server or device reports is used. `relations` hold in every configuration.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_+-]*$")
    description: str = ""
    fixed: Fixed = Fixed()
    flags: dict[str, KnobType] = Field(default={})
    environment: dict[str, KnobType] = Field(default={})
    device: dict[str, KnobType] = Field(default={})
    load: Annotated[dict[str, KnobType], BeforeValidator(with_level_names)] = Field(default={})
    relations: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> SearchSpace:
        for section, allowed in (("device", DEVICE_KNOBS), ("load", LOAD_KNOBS)):
            for name in getattr(self, section):
                if name not in allowed:
                    raise ValueError(f"{section}: " + unknown_name("knob", name, allowed))
        check_names(self.flags, self.environment)
        check_settings(self.fixed.flags, self.fixed.environment)
        for section, name, knob in self.knobs():
            _check_kind(section, name, knob)
            check_form(section, name, knob)
        names = [name for _, name, _ in self.knobs()]
        if not names:
            raise ValueError("there is no knob; write at least one under flags, environment, ...")
        twice = {n for n in names if names.count(n) > 1}
        both = (set(self.flags) & {name.partition(".")[0] for name in self.fixed.flags}) | (
            set(self.environment) & set(self.fixed.environment)
        )
        if twice or both:
            raise ValueError(f"named twice: {', '.join(sorted(twice | both))}")
        for text in self.relations:
            self._relation(text)
        return self

    def knobs(self) -> Iterator[tuple[Section, str, Knob]]:
        """Yield (section, name, knob) in a fixed order."""
        for section in SECTIONS:
            for name, knob in getattr(self, section).items():
                yield section, name, knob

    def settings(self) -> Iterator[tuple[Section, str]]:
        """Yield (section, name) of everything that a knob sets in a configuration."""
        for section, name, knob in self.knobs():
            if not isinstance(knob, Variants):
                yield section, name
                continue
            for field in dict.fromkeys(f for fields in knob.variants.values() for f in fields):
                yield section, f"{name}.{field}"

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Optuna's parameters; what exists under a variant stands after it."""
        found: list[Parameter] = []
        for section, name, knob in self.knobs():
            found.append(Parameter(parameter_name(name, knob), section, name, knob))
            if isinstance(knob, Variants):
                found += _parameters_of(section, name, knob)
        return tuple(found)

    def kind(self, name: str) -> Kind:
        """Return a knob's kind; raises `KeyError` for an unknown knob."""
        section, knob = next(((s, k) for s, n, k in self.knobs() if n == name), (None, None))
        if section is None or knob is None:
            raise KeyError(name)
        if section in ("device", "load"):
            return section
        return knob.kind or ("live" if _can_be_live(section, name, knob) else "launch")

    def kind_of(self, parameter: Parameter) -> Kind:
        """Return the kind of a parameter; a structured flag's fields change by a new launch."""
        return self.kind(parameter.setting) if parameter.under is None else "launch"

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return Optuna's distribution of each parameter."""
        return {one.name: one.knob.distribution() for one in self.parameters}

    def active(self, parameters: Parameters) -> dict[str, Value]:
        """Return the parameters that exist beside each other.

        Raises `KeyError` where one of them is missing.
        """
        found: dict[str, Value] = {}
        for one in self.parameters:
            if one.is_active(found):
                found[one.name] = parameters[one.name]
        return found

    def configuration(self, parameters: Parameters) -> Configuration:
        """Return the configuration that corresponds to Optuna's parameters."""
        values: dict[str, dict[str, Value]] = {section: {} for section in SECTIONS}
        for one in self.parameters:
            if not one.is_active(parameters):
                continue
            value = one.knob.decode(parameters[one.name])
            if isinstance(one.knob, Variants):
                fields = one.knob.variants[str(value)]
                values[one.section] |= {
                    f"{one.setting}.{field}": fixed
                    for field, fixed in fields.items()
                    if not isinstance(fixed, BaseModel)
                }
            elif not (value == UNSET and is_unset_option(one.knob)):
                values[one.section][one.setting] = value
        return Configuration(**values)

    def broken_relation(self, parameters: Parameters, gpus: int | None) -> str | None:
        """Return the text of a relation that these parameters do not keep, None if all hold.

        `gpus` is how many GPUs the study may use, None if that is not known.
        """
        if not self._relations:
            return None
        values: dict[str, Value] = {**self.fixed.flags, **self.fixed.environment}
        if gpus is not None:
            values[GPUS] = gpus
        for one in self.parameters:
            if one.is_active(parameters):
                values[one.setting] = self._meaning(one, one.knob.decode(parameters[one.name]))
            else:
                values.setdefault(one.setting, UNSET)
        return next((r.text for r in self._relations if not r.holds(values)), None)

    @property
    def names_in_relations(self) -> frozenset[str]:
        """The names that the relations read."""
        return frozenset(name for relation in self._relations for name in relation.names)

    @cached_property
    def _relations(self) -> tuple[Relation, ...]:
        return tuple(map(self._relation, self.relations))

    def _relation(self, text: str) -> Relation:
        known = {one.setting for one in self.parameters}
        return Relation.parse(text, {GPUS, *known, *self.fixed.flags, *self.fixed.environment})

    def _meaning(self, one: Parameter, value: Value) -> Value:
        """Return the value of a knob as a relation reads it: the known default if it is unset."""
        if value != UNSET or not is_unset_option(one.knob):
            return value
        if one.setting in flag_rules().parallel_sizes:
            return 1
        default = None if isinstance(one.knob, Variants) else one.knob.default
        return UNSET if default is None else default

    def baseline_parameters(
        self, defaults: Mapping[str, Value], own: Configuration | None = None
    ) -> dict[str, Value]:
        """Return Optuna's parameters nearest to the baseline: `own`, else the defaults.

        `defaults` are the values that server and device report; a knob's own `default` overrides
        them, and the baseline's own values override both. Raises `UsageError` if none gives a value
        or it lies outside the range: trial 0 would then be recorded at a point where it was not
        measured.
        """
        own = own or Configuration()
        parameters: dict[str, Value] = {}
        for section, name, knob in self.knobs():
            values = getattr(own, section)
            if isinstance(knob, Variants):
                parameters |= self._baseline_variant(section, name, knob, values)
                continue
            field = f"{section}.{name}.default"
            value = values.get(name, self.default_of(name, knob, defaults))
            if value is None:
                option = f"the first trial has, or give --{name.replace('_', '-')}"
                wanted = option if section == "load" else "the server uses when it is not set"
                raise UsageError(
                    f"search space '{self.name}': {field}: the default of '{name}' is not known "
                    f"here; write down what {wanted}"
                )
            encoded = encoded_or_none(knob, value)
            if encoded is None:
                raise UsageError(
                    f"search space '{self.name}': {field}: found {value}, outside the knob's own "
                    "range; widen low..high (or choices) so that it holds the default"
                )
            parameters[parameter_name(name, knob)] = encoded
        return parameters

    def default_of(self, name: str, knob: Knob, defaults: Mapping[str, Value]) -> Value | None:
        """Return the value of a knob that is not set, None if that is not known."""
        if is_unset_option(knob):
            return UNSET
        if isinstance(knob, Variants):
            return None
        return knob.default if knob.default is not None else defaults.get(name)

    def variant_parameters(
        self, section: Section, name: str, knob: Variants, values: Mapping[str, Value]
    ) -> dict[str, Value] | None:
        """Return the parameters of a structured flag's fields in a configuration's `values`.

        None if no variant has them.
        """
        fields = fields_of(name, values)
        variant = knob.variant_of(fields)
        if variant is None:
            return None
        parameters: dict[str, Value] = {name: variant}
        for one in self.parameters:
            if one.section == section and one.under == (name, variant):
                encoded = encoded_or_none(one.knob, values[one.setting])
                if encoded is None:
                    return None
                parameters[one.name] = encoded
        return parameters

    def _baseline_variant(
        self, section: Section, name: str, knob: Variants, values: Mapping[str, Value]
    ) -> dict[str, Value]:
        found = self.variant_parameters(section, name, knob, values)
        if found is None:
            fields = fields_of(name, values)
            shown = ", ".join(f"{k}={v}" for k, v in fields.items()) or "unset"
            raise UsageError(
                f"search space '{self.name}': {section}.{name}: the baseline is {shown}, which no "
                "variant can be; add one that is"
            )
        return found

    def sha256(self) -> str:
        """Return a hash of the knobs and fixed settings; descriptions do not count."""
        data = self.model_dump(mode="json", exclude={"description"})
        for section, name, knob in self.knobs():
            if knob.kind is None:
                del data[section][name]["kind"]
        if not self.relations:
            del data["relations"]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def load_space(name: str, ranges: Callable[[], DeviceRanges] | None = None) -> SearchSpace:
    """Read a shipped search space or a YAML file; `a+b` joins several.

    `ranges` returns the card's ranges; it is called only if a device knob is given as a share of
    them. Raises `UsageError`, also for a share without `ranges`.
    """
    origin, data = read_space(name, ranges)
    return validate(origin, data, SearchSpace)


def fields_of(name: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the fields of a structured flag among a configuration's values, by their own names."""
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def encoded_or_none(knob: Knob, value: Value) -> Value | None:
    """Return the parameter nearest to a value; None if the knob's range does not contain it."""
    try:
        encoded = knob.encode(value)
        return encoded if contains(knob, encoded) else None
    except (TypeError, ValueError, OverflowError):  # a text where the knob has numbers
        return None


def names_searched(space: SearchSpace, names: Collection[str]) -> set[str]:
    """Return those of a configuration's names that the space has a knob for."""
    knobs = {name for _, name, _ in space.knobs()}
    return {name for name in names if name in knobs or name.partition(".")[0] in knobs}


def _parameters_of(section: Section, name: str, knob: Variants) -> list[Parameter]:
    return [
        Parameter(
            parameter_name(f"{name}.{variant}.{field}", sub),
            section,
            f"{name}.{field}",
            sub,
            (name, variant),
        )
        for variant, fields in knob.variants.items()
        for field, sub in fields.items()
        if isinstance(sub, BaseModel)
    ]


def _check_kind(section: Section, name: str, knob: Knob) -> None:
    """Raise `ValueError` if the knob cannot have its `kind`."""
    if isinstance(knob, Variants) and section != "flags":
        raise ValueError(f"{section}.{name}: variants are for structured flags")
    if knob.kind is not None and section in ("device", "load"):
        raise ValueError(f"{section}.{name}: kind is for flags; leave it out")
    if knob.kind == "live" and not _can_be_live(section, name, knob):
        raise ValueError(
            f"{section}.{name}: cannot be changed in a running vLLM, only ranges of "
            f"{' and '.join(_live_flags())} can; leave `kind: live` out"
        )


def _can_be_live(section: Section, name: str, knob: Knob) -> bool:
    return section == "flags" and name in _live_flags() and isinstance(knob, PowerOfTwo | Integer)


def _live_flags() -> tuple[str, ...]:
    limits = flag_rules().limits
    return () if limits is None else limits.flags
