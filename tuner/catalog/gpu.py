"""GPU catalog: data-sheet figures and a few fitted constants of each emulated GPU, from YAML."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuner.catalog.shipped import shipped_folder, shipped_names
from tuner.catalog.yaml_files import read_yaml
from tuner.errors import UsageError, unknown_name

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

    matrix_efficiency: float = Field(gt=0, le=1)  # of peak FLOP/s, large products, highest clock
    memory_efficiency: float = Field(gt=0, le=1)  # of peak bytes/s, weights
    expert_efficiency: float = Field(gt=0, le=1)  # of peak bytes/s, weights of experts
    attention_efficiency: float = Field(gt=0, le=1)  # of peak bytes/s, cache
    expert_matrix_share: float = Field(gt=0, le=1)  # of matrix_efficiency, experts
    expert_tile_share: float = Field(gt=0, le=1)  # of expert_efficiency, more tokens than experts
    expert_skew: float = Field(ge=0)  # more tokens on the busiest GPU per doubling of them
    roofline_overlap: float = Field(ge=0, le=1)  # of compute and memory time of the same operators
    layer_us: float = Field(ge=0)  # short kernels of a layer
    expert_layer_us: float = Field(ge=0)  # what a mixture of experts adds to a layer
    quantize_layer_us: float = Field(ge=0)  # what 8-bit weights add to a layer
    logit_bytes: float = Field(ge=0)  # moved per sampled sequence and vocabulary entry
    prefill_layer_us: float = Field(ge=0)  # what a prefill adds to each attention layer,
    prefill_latent_us: float = Field(ge=0)  # to one with a compressed cache,
    prefill_expert_us: float = Field(ge=0)  # to a mixture of experts,
    prefill_state_us: float = Field(ge=0)  # to a recurrent layer
    all_reduce_us: float = Field(ge=0)  # latency of one over two GPUs
    all_reduce_growth: float = Field(ge=0, le=2)  # exponent of the latency in the GPUs
    link_efficiency: float = Field(gt=0, le=1)  # of link_gb_s
    host_step_us: float = Field(ge=0)
    host_sequence_us: float = Field(ge=0)
    host_overlap: float = Field(ge=0, le=1)  # of host and GPU time, without async scheduling

    idle_w: float = Field(gt=0)
    loaded_idle_w: float = Field(gt=0)
    active_w: float = Field(ge=0)
    stall_w: float = Field(ge=0)
    compute_w: float = Field(ge=0)
    prefill_activity: float = Field(ge=0, le=1)  # share of compute_w in what a prefill adds
    memory_pj_per_byte: float = Field(ge=0)
    limit_use: float = Field(default=1.0, gt=0.5, le=1)  # mean power at a limit that binds / limit
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
    return tuple(shipped_names("gpus"))


def load_gpu(name: str) -> Gpu:
    """Return a shipped GPU by name, or one from the path of a YAML file.

    Raises `UsageError` for an unknown name, a missing file or an invalid file.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"no file '{name}'; give the path of a YAML file or a shipped GPU")
        return read_yaml(path, Gpu)
    shipped = {path.stem.lower(): path for path in shipped_folder("gpus").glob("*.yaml")}
    if name.lower() not in shipped:
        raise UsageError(unknown_name("GPU", name, gpu_names()) + " (or write a path to .yaml)")
    return read_yaml(shipped[name.lower()], Gpu)


def save_gpu(gpu: Gpu, path: Path) -> None:
    """Write a file that `load_gpu` reads. Raises `UsageError` if it cannot be written."""
    text = yaml.safe_dump(gpu.model_dump(), sort_keys=False, width=100)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error}") from None
