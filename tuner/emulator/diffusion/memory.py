"""Memory that a batch of images or videos takes, beside the weights.

The factors are chosen so that the batches that ML.ENERGY ran on an H100 fit and the next larger
ones, which it did not, do not: 16 and 32 images of a megapixel, 2 and 4 of HunyuanVideo's clips, 4
and 8 of CogVideoX 1.5's.
"""

from __future__ import annotations

from tuner.catalog.diffusion.model import DiffusionModel
from tuner.emulator.diffusion.cost import Picture
from tuner.emulator.diffusion.launch import DiffusionLaunch

_IMAGE_PIXEL_BYTES = 1950.0  # in the decoder, which takes a batch of images at once
_STATES = 16.0  # copies of the hidden state in a layer, 16 bits each


def batch_bytes(
    model: DiffusionModel, launch: DiffusionLaunch, picture: Picture, batch: int
) -> float:
    """Return the most bytes on a GPU: weights, and the larger of transformer and decoder."""
    tokens = model.picture_tokens(picture.height, picture.width, picture.frames)
    passes = model.passes / launch.cfg_parallel_size if model.batched_passes else 1.0
    states = 2.0 * _STATES * (tokens + model.text_tokens) * model.width * batch * passes
    decoded = 0.0
    if picture.frames == 1:
        decoded = _IMAGE_PIXEL_BYTES * picture.height * picture.width * batch
    return model.weight_bytes + max(states / launch.sequence_gpus, decoded)
