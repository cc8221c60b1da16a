"""A GPU's constants for the work of diffusion transformers, fitted to measured rows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tuner.catalog.yaml_files import read_mapping
from tuner.errors import UsageError


class DiffusionConstants(BaseModel):
    """Efficiencies, latencies and powers; times and watts are those of one GPU at its top clock.

    Attributes:
        linear_efficiency: of the peak FLOP/s in 16 bits, in products with weights.
        attention_efficiency: the same in attention.
        traffic_bytes: what the elementwise work moves per hidden value and layer, at peak rate.
        layer_us: other kernels, per layer and step.
        host_us: what the host needs to launch the kernels of a layer, per step.
        ulysses_us: latency of its exchanges, per layer and doubling of GPUs.
        ulysses_gb_s: their rate; `ring_us` and `ring_gb_s` are of each turn of a ring.
        ring_share: how much longer attention takes for each turn.
        image_pixel_ns: decoding, per pixel, on one GPU; `video_pixel_ns` is of a video's.
        encode_ms: the text encoders, per batch.
        linear_w: power in products with weights; `attention_w` in attention, `traffic_w` in
            elementwise work, `wait_w` in small kernels, exchanges and waits, `decode_w` in coding.
        errors: held-out relative errors, nine in ten: of `energy` and of `latency`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    linear_efficiency: float = Field(gt=0, le=1)
    attention_efficiency: float = Field(gt=0, le=1)
    traffic_bytes: float = Field(ge=0)
    layer_us: float = Field(ge=0)
    host_us: float = Field(ge=0)
    ulysses_us: float = Field(ge=0)
    ulysses_gb_s: float = Field(gt=0)
    ring_us: float = Field(ge=0)
    ring_gb_s: float = Field(gt=0)
    ring_share: float = Field(ge=0)
    image_pixel_ns: float = Field(ge=0)
    video_pixel_ns: float = Field(ge=0)
    encode_ms: float = Field(ge=0)
    linear_w: float = Field(gt=0)
    attention_w: float = Field(gt=0)
    traffic_w: float = Field(gt=0)
    wait_w: float = Field(gt=0)
    decode_w: float = Field(gt=0)
    errors: dict[str, float] = Field(default_factory=dict)


def diffusion_constants(gpu: str) -> DiffusionConstants:
    """Return the constants of a GPU, by its name in the catalog; `NAME:3` is card 3 of a host.

    Raises `UsageError` for one that no image or video was measured on.
    """
    table = _table()
    name = gpu.partition(":")[0]
    if name not in table:
        raise UsageError(
            f"images and videos are emulated on {', '.join(table)}, not on {gpu}: choose one of "
            "them with --emulate"
        )
    return table[name]


@cache
def _table() -> dict[str, DiffusionConstants]:
    rows = read_mapping(Path(__file__).parent / "constants.yaml")
    return {
        name: DiffusionConstants.model_validate(rows[row] if isinstance(row, str) else row)
        for name, row in rows.items()
        if name != "source"
    }
