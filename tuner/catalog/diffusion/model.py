"""Diffusion models by their Hugging Face names: the shape of the transformer, and what it makes."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tuner.catalog.yaml_files import read_mapping
from tuner.errors import UsageError, unknown_name
from tuner.metrics import Output


class DiffusionModel(BaseModel):
    """One diffusion transformer with its text encoders and its decoder.

    Attributes:
        makes: images or videos.
        layers: of the transformer; `width` is that of its hidden state.
        token_weights: what a token of the picture is multiplied with in a layer, in width^2.
        text_weights: the same for a token of the text, where the text is in the same sequence.
        text_tokens: how many of those there are; 0 with cross-attention.
        more_attention_layers: layers that attend a second time, over the picture alone.
        attention: over all pairs of tokens, or linear in their number.
        passes: of the transformer in a step: 2 with classifier-free guidance.
        batched_passes: whether the passes of a step are made at once, as one larger batch.
        shrink: frames, rows and columns of pixels that one token stands for.
        measured_factor: measured time of the transformer / what its shape says, on one GPU; 1 for
            a model of which no row was measured.
        parameters_b: of the transformer, 1e9; `encoder_b` those of the text encoders.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    makes: Literal["image", "video"]
    layers: int = Field(gt=0)
    width: int = Field(gt=0)
    token_weights: float = Field(gt=0)
    text_weights: float = Field(default=0.0, ge=0)
    text_tokens: int = Field(default=0, ge=0)
    more_attention_layers: int = Field(default=0, ge=0)
    attention: Literal["full", "linear"] = "full"
    passes: Literal[1, 2]
    batched_passes: bool = True
    shrink: tuple[int, int, int]
    parameters_b: float = Field(gt=0)
    encoder_b: float = Field(ge=0)
    measured_factor: float = Field(default=1.0, gt=0.5, lt=2)

    @property
    def output(self) -> Output:
        """What it makes."""
        return Output(self.makes)

    @property
    def weight_bytes(self) -> float:
        """Bytes of transformer and text encoders in 16 bits."""
        return 2e9 * (self.parameters_b + self.encoder_b)

    def picture_tokens(self, height: int, width: int, frames: int) -> int:
        """Return how many tokens a picture has; the first frame of a video has its own."""
        per_frame, rows, columns = self.shrink
        groups = 1 if frames == 1 else 1 + math.ceil((frames - 1) / 4)
        groups = math.ceil(groups / max(per_frame / 4, 1))
        return groups * math.ceil(height / rows) * math.ceil(width / columns)


def diffusion_model_names() -> tuple[str, ...]:
    """Names of the models that are known."""
    return tuple(sorted(_table()))


def is_diffusion_model(name: str) -> bool:
    """Say whether a name is one of them, in any case."""
    return name.lower() in {known.lower() for known in _table()}


def load_diffusion_model(name: str) -> DiffusionModel:
    """Return a model by name; raises `UsageError` for another."""
    names = {known.lower(): known for known in _table()}
    if name.lower() not in names:
        raise UsageError(unknown_name("image or video model", name, _table()))
    return _table()[names[name.lower()]]


@cache
def _table() -> dict[str, DiffusionModel]:
    table = read_mapping(Path(__file__).parent / "models.yaml")
    return {
        name: DiffusionModel.model_validate({"name": name, **row}) for name, row in table.items()
    }
