"""Likeness of pictures: PSNR and SSIM at full size, small copies, what cannot be compared."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from tuner.measurement.quality.likeness import NotComparedError, Picture, picture_changes
from tuner.pictures import PictureChange

av = pytest.importorskip("av")
image_module = pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")


def drawn(height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((height // 8, width // 8, 1), dtype=np.uint8))


def png(pixels: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    image_module.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def mp4(greys: list[int]) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for grey in greys:
            pixels = np.full((64, 64, 3), grey, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue()


def change(ours: bytes, theirs: bytes) -> PictureChange:
    return picture_changes([Picture("a boat", 7, ours)], [Picture("a boat", 7, theirs)])[0]


def test_equal_pictures_are_alike() -> None:
    found = change(png(drawn()), png(drawn()))
    assert (found.ssim, found.psnr_db, found.frames) == (1.0, 100.0, 1)
    assert found.before == found.after


def test_the_more_noise_the_less_alike() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, drawn().shape)
    noisy = [np.clip(drawn() + s * noise, 0, 255).astype(np.uint8) for s in (2, 10, 40)]
    found = [change(png(pixels), png(drawn())) for pixels in noisy]
    assert [f.ssim for f in found] == sorted((f.ssim for f in found), reverse=True)
    assert [f.psnr_db for f in found] == sorted((f.psnr_db for f in found), reverse=True)
    assert found[0].psnr_db == pytest.approx(20 * np.log10(255 / 2), abs=0.5)  # its definition


def test_of_a_video_three_frames_are_compared() -> None:
    found = change(mp4([10, 10, 10, 10, 90]), mp4([10, 10, 10, 10, 10]))
    assert found.frames == 3
    assert found.psnr_db < 15.0  # that of the last, which is the worst
    assert change(mp4([10] * 5), mp4([10] * 5)).ssim == pytest.approx(1.0)


def test_small_copies_are_small() -> None:
    large = png(drawn(1024, 1024))
    found = change(large, large)
    assert len(found.before) < 20_000
    with image_module.open(io.BytesIO(found.before)) as small:
        assert max(small.size) <= 160


@pytest.mark.parametrize("broken", [b"", b"no picture", png(drawn())[:80], b"\0\0\0\x10ftypisom"])
def test_what_cannot_be_decoded_is_said(broken: bytes) -> None:
    with pytest.raises(NotComparedError, match="could not be decoded"):
        change(broken, png(drawn()))


def test_another_size_is_not_compared() -> None:
    with pytest.raises(NotComparedError, match="different sizes"):
        change(png(drawn(64, 64)), png(drawn()))


def test_what_is_stored_is_read_back() -> None:
    found = change(png(drawn()), png(drawn()))
    assert PictureChange.from_json(found.to_json()) == found
