"""The GPUs that can be emulated: data-sheet figures and a few fitted constants, from YAML."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuner.errors import UsageError, unknown_name
from tuner.yaml_files import read_yaml

CLOCK_STEP_MHZ = 15


class Gpu(BaseModel):
    """One GPU as the emulator sees it. Watts of activity are at the highest clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str
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

    matrix_efficiency: float = Field(gt=0, le=1)
    memory_efficiency: float = Field(gt=0, le=1)
    attention_efficiency: float = Field(gt=0, le=1)
    host_step_us: float = Field(ge=0)
    host_sequence_us: float = Field(ge=0)

    idle_w: float = Field(gt=0)
    loaded_idle_w: float = Field(gt=0)
    active_w: float = Field(ge=0)
    stall_w: float = Field(ge=0)
    compute_w: float = Field(ge=0)
    memory_pj_per_byte: float = Field(ge=0)
    knee_mhz: int = Field(gt=0)
    knee_voltage: float = Field(gt=0, le=1)
    full_bandwidth_mhz: int = Field(gt=0)

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
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


def load_gpu(name: str) -> Gpu:
    """Return a shipped GPU by name, or one from the path of a YAML file.

    Raises `UsageError` for a name or file that there is not, or a file that is wrong.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"no file '{name}'; give the path of a YAML file or a shipped GPU")
        return read_yaml(path, Gpu)
    shipped = {path.stem.lower(): path for path in _folder().glob("*.yaml")}
    if name.lower() not in shipped:
        raise UsageError(unknown_name("GPU", name, gpu_names()) + " (or write a path to .yaml)")
    return read_yaml(shipped[name.lower()], Gpu)


def _folder() -> Path:
    return Path(__file__).parent / "gpus"
