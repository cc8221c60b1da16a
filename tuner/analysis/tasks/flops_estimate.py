"""FLOPs estimate of energy per request, to compare with the measured energy."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.gpu_names import emulated_gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.errors import UsageError
from tuner.spec.stored import StoredSpec
from tuner.store import StudyIdentity

DEFAULT_MFU = 0.1
SOURCE = "10 % of peak: Epoch AI, 'How much energy does ChatGPT use?', 2025"
FORMULA = "2 x active parameters x (prompt + output tokens) / (peak FLOP/s x MFU) x TDP"


@dataclass(frozen=True, slots=True)
class FlopsBasis:
    """Inputs of the estimate: parameters per token, FLOP/s of one GPU, its TDP (W)."""

    active_parameters: int
    peak_flop_s: float
    tdp_w: float

    def energy_j(self, tokens: float, mfu: float) -> float:
        """Return the energy of so many tokens, J: `FORMULA`.

        The number of GPUs cancels out: n of them take an nth of the time at n times the power.
        """
        return 2.0 * self.active_parameters * tokens / (self.peak_flop_s * mfu) * self.tdp_w


def flops_basis(study: StudyIdentity) -> FlopsBasis | None:
    """Return the inputs for a study's model and GPU; None if either is unknown."""
    gpu = _data_sheet(study)
    try:
        model = load_model(study.model)
    except UsageError:
        return None
    if gpu is None:
        return None
    is_fp8 = gpu.fp8_tflops is not None and _multiplies_fp8(model)
    tflops = gpu.fp8_tflops if is_fp8 and gpu.fp8_tflops is not None else gpu.bf16_tflops
    return FlopsBasis(active_parameters(model), tflops * 1e12, gpu.default_limit_w)


def active_parameters(model: ModelShape) -> int:
    """Return how many parameters a token is multiplied with.

    Of the vocabulary's matrices that is the last: the first one is looked up.
    """
    attention = model.attention
    total = model.embedding_parameters + attention.layers * attention.parameters
    total += sum(p.layers * p.parameters for p in (model.mlp, model.recurrent) if p is not None)
    if model.moe is not None:
        moe = model.moe
        total += moe.layers * (moe.active * moe.parameters + moe.shared_parameters)
    return int(total)


def _multiplies_fp8(model: ModelShape) -> bool:
    """Say whether the layers with most of the parameters are multiplied in 8 bits."""
    largest = model.moe if model.moe is not None else model.mlp
    return largest is not None and largest.weights.fp8


def _data_sheet(study: StudyIdentity) -> Gpu | None:
    if (gpu := emulated_gpu(study.gpu)) is not None:
        return gpu
    emulated = StoredSpec.of(study).emulate
    try:
        return None if emulated is None else load_gpu(emulated)
    except UsageError:
        return None
