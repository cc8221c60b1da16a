"""Likeness of pictures that two configurations make of the same prompts and seeds.

PSNR and SSIM are those of scikit-image, on the pictures as they came, at full size. They say how
much a picture changed, not whether it got worse: one that is as good but another has a low SSIM.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import UsageError
from tuner.pictures import PictureChange

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_FRAMES = 3  # of a video: the first, the middle and the last
_THUMBNAIL_PX = 160
_THUMBNAIL_QUALITY = 75
_LEAST_PX = 7  # the window of SSIM
_ALIKE_DB = 100.0  # of equal pictures, whose PSNR is infinite


class NotComparedError(Exception):
    """Pictures could not be compared; the text says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What came for a prompt and a seed: a PNG, or an MP4 of a video."""

    prompt: str
    seed: int
    content: bytes


def require_tools(*, video: bool) -> None:
    """Raise `UsageError` if what compares pictures is not installed."""
    try:
        import skimage.metrics  # noqa: F401

        if video:
            import av  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"pictures cannot be compared without {error.name}; pip install scikit-image av"
        ) from None


def picture_changes(
    ours: Sequence[Picture], theirs: Sequence[Picture]
) -> tuple[PictureChange, ...]:
    """Compare pictures with the baseline's, `theirs`, one by one.

    Raises `NotComparedError` for what cannot be decoded, or has another size.
    """
    return tuple(_change(a, b) for a, b in zip(ours, theirs, strict=True))


def _change(ours: Picture, theirs: Picture) -> PictureChange:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    pairs = list(zip(_frames(theirs.content), _frames(ours.content), strict=False))
    if not pairs or any(before.shape != after.shape for before, after in pairs):
        raise NotComparedError(f"the pictures of '{ours.prompt[:40]}' have different sizes")
    least = min(min(before.shape[:2]) for before, _ in pairs)
    if least < _LEAST_PX:
        raise NotComparedError(f"a picture of {least} pixels is too small to compare")
    ssims = [
        float(structural_similarity(before, after, channel_axis=2, data_range=255))
        for before, after in pairs
    ]
    psnrs = [
        _ALIKE_DB
        if (before == after).all()
        else float(peak_signal_noise_ratio(before, after, data_range=255))
        for before, after in pairs
    ]
    return PictureChange(
        prompt=ours.prompt,
        seed=ours.seed,
        psnr_db=min(psnrs),
        ssim=min(ssims),
        frames=len(pairs),
        before=_thumbnail(pairs[0][0]),
        after=_thumbnail(pairs[0][1]),
    )


def _frames(content: bytes) -> list[NDArray[Any]]:
    """Return pictures of shape (height, width, 3), bytes: of a video its first, middle and last."""
    import numpy as np

    if content[4:8] == b"ftyp":
        return _video_frames(content)
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
            return [np.asarray(image.convert("RGB"))]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NotComparedError(f"a picture could not be decoded ({error})") from None


def _video_frames(content: bytes) -> list[NDArray[Any]]:
    try:
        import av
    except ImportError:
        raise NotComparedError("videos are compared with av: pip install scikit-image av") from None
    try:
        with av.open(io.BytesIO(content), format="mp4") as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise NotComparedError(f"a video could not be decoded ({error})") from None
    chosen = dict.fromkeys((0, len(frames) // 2, len(frames) - 1)) if frames else {}
    return [frames[at] for at in chosen]


def _thumbnail(picture: NDArray[Any]) -> bytes:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
    return out.getvalue()
