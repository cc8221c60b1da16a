"""The fields of a workload file that ask for images or videos instead of tokens."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tuner.metrics import Output

_SIDE = Annotated[int, Field(ge=16, le=8192, multiple_of=8)]  # pixels: one latent is 8 wide


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Size(_Part):
    """A class of pictures, and how many of the requests ask for it, relative to the others."""

    height: _SIDE
    width: _SIDE
    share: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0


class GenerationSpec(_Part):
    """What each request asks for; `steps` are the sampler's, the prompts are drawn or of a file.

    `prompts` is a file beside the YAML file: text with a prompt a line, or JSON lines with
    `prompt`. Without `guidance` the model's own is taken.
    """

    output: Literal["image", "video"]
    sizes: Annotated[tuple[Size, ...], Field(min_length=1, max_length=64)]
    steps: Annotated[int, Field(ge=1, le=1000)]
    frames: Annotated[int, Field(ge=1, le=10_000)] | None = None
    fps: Annotated[float, Field(gt=0, le=240, allow_inf_nan=False)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    prompts: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("prompts")
    @classmethod
    def _known_form(cls, file: str | None) -> str | None:
        if file is not None and (
            not file.endswith((".txt", ".jsonl")) or PurePath(file).is_absolute()
        ):
            raise ValueError(
                f"found '{file}'; it must be a path beside the YAML file that ends in .txt (a "
                "prompt a line) or .jsonl (lines with `prompt`)"
            )
        return file

    @model_validator(mode="after")
    def _of_one_kind(self) -> GenerationSpec:
        is_video = self.output == "video"
        if is_video and (self.frames is None or self.fps is None):
            raise ValueError("a video needs frames and fps, which make its length")
        if not is_video and not (self.frames is None and self.fps is None):
            raise ValueError("an image has no frames and fps; leave them out, or ask for a video")
        return self

    @property
    def kind(self) -> Output:
        """What is asked for."""
        return Output(self.output)
