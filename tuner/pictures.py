"""Pictures of a configuration beside those of the baseline: what is kept of the comparison."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class PictureChange:
    """A picture beside the baseline's of the same prompt and seed.

    Attributes:
        psnr_db: peak signal-to-noise ratio, dB; of a video the least of its frames.
        ssim: mean structural similarity, 1 for equal pictures; of a video the least of its frames.
        frames: how many of a video were compared, 1 of an image.
        before: a small JPEG of the baseline's.
        after: a small JPEG of the configuration's.
    """

    prompt: str
    seed: int
    psnr_db: float
    ssim: float
    frames: int
    before: bytes
    after: bytes

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready form; `from_json` reads it back."""
        small = {"before": self.before, "after": self.after}
        return {
            "prompt": self.prompt,
            "seed": self.seed,
            "psnr_db": self.psnr_db,
            "ssim": self.ssim,
            "frames": self.frames,
            **{name: base64.b64encode(jpeg).decode() for name, jpeg in small.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PictureChange:
        """Build from the result of `to_json`; raises `ValueError`, `KeyError` or `TypeError`."""
        return cls(
            str(data["prompt"]),
            int(data["seed"]),
            float(data["psnr_db"]),
            float(data["ssim"]),
            int(data["frames"]),
            *(base64.b64decode(data[name], validate=True) for name in ("before", "after")),
        )


Pictures: TypeAlias = tuple[PictureChange, ...]


def pictures_of(data: Sequence[Mapping[str, Any]] | None) -> Pictures | None:
    """Return pictures from their JSON; raises as `PictureChange.from_json`."""
    return None if data is None else tuple(map(PictureChange.from_json, data))


def mean_ssim(pictures: Sequence[PictureChange]) -> float | None:
    """Return the mean structural similarity; None without pictures."""
    return sum(one.ssim for one in pictures) / len(pictures) if pictures else None
