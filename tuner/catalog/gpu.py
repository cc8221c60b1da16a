"""GPU catalog: data-sheet figures and a few fitted constants of each emulated GPU, from YAML."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuner.catalog.engine import EngineConstants, load_engine
from tuner.catalog.shipped import shipped_folder, shipped_names
from tuner.catalog.yaml_files import read_mapping, validate
from tuner.errors import UsageError, unknown_name

CLOCK_STEP_MHZ = 15
_WITHOUT_DATA = {
    "gb10": "GB10 is not emulated: no measurement of its power under a known load is at hand, and "
    "its driver has no power limit; write a .yaml with your own figures (docs/emulator.md)"
}
_CARD_DEVIATION = 0.04
_MOST_CARD_DEVIATION = 0.10


class Thermal(BaseModel):
    """How warm a card gets, once it is in balance, and what that costs.

    A GPU's watts are those of the coolant that its rows were measured in; leakage grows with each
    kelvin above it. A card is kept below `slowdown_c` by its clock.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    coolant_c: float = Field(gt=-50, lt=90)  # of a card without power, where its rows were measured
    warmer_k: float = Field(default=0.0, gt=-60, lt=60)  # the coolant here, than there
    kelvin_per_w: float = Field(gt=0, lt=1)  # of the card, above its coolant
    leakage_w_per_k: float = Field(ge=0)  # at the highest voltage
    slowdown_c: float = Field(gt=50, le=120)

    @model_validator(mode="after")
    def _cool_enough(self) -> Thermal:
        if self.coolant_c + self.warmer_k >= self.slowdown_c:
            raise ValueError("coolant_c + warmer_k < slowdown_c must hold")
        return self

    @property
    def leakage_w(self) -> float:
        """Power beside that of where the rows were measured, at the highest voltage."""
        return self.leakage_w_per_k * self.warmer_k

    @property
    def limit_w(self) -> float:
        """Power at which the card is as warm as it may be."""
        return (self.slowdown_c - self.coolant_c - self.warmer_k) / self.kelvin_per_w


class Gpu(EngineConstants):
    """One GPU under one engine, as the emulator sees it. Watts are at the highest clock.

    A GPU's file holds what belongs to the card; the engine's profile adds the rest, and a file
    that has it too, as one that was calibrated, is of the engine that it names.
    """

    name: str
    source: str
    engine: str
    errors: Mapping[str, float] = Field(default_factory=dict)  # held out, where it was calibrated
    bf16_tflops: float = Field(gt=0)
    fp8_tflops: float | None = Field(default=None, gt=0)
    memory_tb_s: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    link_gb_s: float = Field(gt=0)
    max_gpus: int = Field(default=8, ge=1)

    default_limit_w: float = Field(gt=0)
    min_limit_w: float = Field(gt=0)
    max_limit_w: float = Field(gt=0)
    min_clock_mhz: int = Field(gt=0)
    max_clock_mhz: int = Field(gt=0)

    matrix_efficiency: float = Field(gt=0, le=1)  # of peak FLOP/s, large products, highest clock
    memory_efficiency: float = Field(gt=0, le=1)  # of peak bytes/s, weights
    expert_efficiency: float = Field(gt=0, le=1)  # of peak bytes/s, weights of experts
    attention_efficiency: float = Field(gt=0, le=1)  # of peak bytes/s, cache
    link_efficiency: float = Field(gt=0, le=1)  # of link_gb_s
    unpack_tera_s: float = Field(gt=0)  # weights of fewer than 8 bits that it unpacks in a second

    idle_w: float = Field(gt=0)
    loaded_idle_w: float = Field(gt=0)
    active_w: float = Field(ge=0)
    stall_w: float = Field(ge=0)
    compute_w: float = Field(ge=0)
    eight_bit_energy: float = Field(ge=1, le=2)  # of an 8-bit FLOP / half that of one in 16 bits
    prefill_activity: float = Field(ge=0, le=1)  # share of compute_w in what a prefill adds
    memory_pj_per_byte: float = Field(ge=0)
    limit_use: float = Field(default=1.0, gt=0.5, le=1)  # mean power at a limit that binds / limit
    knee_mhz: int = Field(gt=0)
    knee_voltage: float = Field(gt=0, le=1)
    full_bandwidth_mhz: int = Field(gt=0)
    thermal: Thermal | None = None  # None: no temperature of it was measured under a known power

    @model_validator(mode="after")
    def _ordered(self) -> Gpu:
        if not self.min_limit_w <= self.default_limit_w <= self.max_limit_w:
            raise ValueError("min_limit_w <= default_limit_w <= max_limit_w must hold")
        if not self.min_clock_mhz <= self.knee_mhz < self.max_clock_mhz:
            raise ValueError("min_clock_mhz <= knee_mhz < max_clock_mhz must hold")
        if self.idle_w > self.loaded_idle_w:
            raise ValueError("idle_w <= loaded_idle_w must hold")
        return self


def gpu_names() -> tuple[str, ...]:
    """Names of the shipped GPUs."""
    return tuple(shipped_names("gpus"))


def card_factor(gpu: str, card: int) -> float:
    """Return the power of one card of a host, relative to its kind's: within 10 %, by its number.

    Two H200s of one host differed by 10 % on the same work (docs/emulator.md). Card 0 is the kind
    itself.
    """
    if card == 0:
        return 1.0
    drawn = random.Random(f"{gpu} {card}").gauss(0.0, _CARD_DEVIATION)  # nosec B311
    return 1.0 + min(max(drawn, -_MOST_CARD_DEVIATION), _MOST_CARD_DEVIATION)


def load_gpu(name: str, engine: str | None = None) -> Gpu:
    """Return a shipped GPU by name, or one from the path of a YAML file, under an engine.

    `NAME:3` is card 3 of a host, with the power of a card of its own (`card_factor`). Without an
    engine it is the one that the file names, or else the newest. Raises `UsageError`
    for an unknown name, a missing file or an invalid file, and for an engine that differs from the
    file's own.
    """
    kind, _, number = name.rpartition(":")
    if kind and number.isdecimal():
        return _one_card(load_gpu(kind, engine), int(number))
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"no file '{name}'; give the path of a YAML file or a shipped GPU")
    else:
        shipped = {path.stem.lower(): path for path in shipped_folder("gpus").glob("*.yaml")}
        if name.lower() in _WITHOUT_DATA:
            raise UsageError(_WITHOUT_DATA[name.lower()])
        if name.lower() not in shipped:
            raise UsageError(unknown_name("GPU", name, gpu_names()) + " (or write a path to .yaml)")
        path = shipped[name.lower()]
    data = read_mapping(path)
    own = data.get("engine")
    if own is not None and engine not in (None, own):
        raise UsageError(f"'{name}' was made for the engine {own!r}; leave {engine!r} out")
    profile = load_engine(engine if own is None else str(own))
    constants = profile.constants_for(str(data.get("name")))
    return validate(str(path), {**constants, **data, "engine": profile.name}, Gpu)


def _one_card(gpu: Gpu, card: int) -> Gpu:
    factor = card_factor(gpu.name, card)
    watts = ("idle_w", "loaded_idle_w", "active_w", "stall_w", "compute_w", "memory_pj_per_byte")
    changed = {name: getattr(gpu, name) * factor for name in watts}
    return gpu.model_copy(update={"name": f"{gpu.name}:{card}", **changed})


def gpu_yaml(gpu: Gpu) -> str:
    """Return the text of a file that `load_gpu` reads."""
    return str(yaml.safe_dump(gpu.model_dump(), sort_keys=False, width=100))
