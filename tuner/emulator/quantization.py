"""Quantization of the weights: what a model's layers weigh and compute in, in another format.

`fp8` is what vLLM does by itself to a model in 16 bits: every linear layer in FP8, embeddings and
output matrix as they are. The four-bit formats stand for a checkpoint of the same model in them;
their bytes contain the scales of groups of 128 (AWQ, GPTQ) and of 16 (NVFP4) weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tuner.catalog.model_shape import ModelShape, Weights
from tuner.emulator.refusal import LaunchRefusedError

_SIXTEEN_BITS: Final = Weights().bytes
_FOUR_BITS = Weights(bytes=0.5 + 2.5 / 128)  # multiplied in 16 bits
FORMATS: Mapping[str, Weights] = {
    "fp8": Weights(bytes=1.0, fp8=True),
    "awq": _FOUR_BITS,
    "awq_marlin": _FOUR_BITS,
    "gptq": _FOUR_BITS,
    "gptq_marlin": _FOUR_BITS,
    "modelopt_fp4": Weights(bytes=0.5 + 1.0 / 16, fp8=True),
}


def in_format(model: ModelShape, quantization: str | None) -> ModelShape:
    """Return a model with its 16-bit layers in a format; None leaves it as it is.

    Raises `LaunchRefusedError` for a model whose checkpoint is quantized in another way.
    """
    if quantization is None:
        return model
    weights = FORMATS[quantization]
    layers = [part.weights for part in (model.mlp, model.moe) if part is not None]
    if all(one.bytes != _SIXTEEN_BITS for one in layers):
        if all(one.fp8 == weights.fp8 for one in layers) and quantization == "fp8":
            return model
        raise LaunchRefusedError(
            f"Quantization method specified in the model config does not match the quantization"
            f" method specified in the `quantization` argument ({quantization}).",
            config="ModelConfig",
        )

    def converted(one: Weights) -> Weights:
        return weights if one.bytes == _SIXTEEN_BITS else one

    moe, mlp, recurrent = model.moe, model.mlp, model.recurrent
    return replace(
        model,
        attention=replace(model.attention, weights=converted(model.attention.weights)),
        mlp=None if mlp is None else replace(mlp, weights=converted(mlp.weights)),
        moe=None
        if moe is None
        else replace(
            moe,
            weights=converted(moe.weights),
            shared_weights=converted(moe.shared_weights),
        ),
        recurrent=None
        if recurrent is None
        else replace(recurrent, weights=converted(recurrent.weights)),
    )
