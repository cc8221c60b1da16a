"""Memory fit: which configurations cannot fit into the GPU's memory, known without a launch."""

from __future__ import annotations

from collections.abc import Callable

from tuner.catalog.gpu_names import emulated_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.servers.registry import flag_rules


def fitting(model: str, gpu: str, fixed: Configuration) -> Callable[[Configuration], bool]:
    """Return what says of configurations that they surely do not fit: False, and else True.

    `gpu` is its name, as NVML or the emulator gives it. Where the model's shape or the GPU is not
    known everything may fit.
    """
    known_gpu = emulated_gpu(gpu)
    try:
        shape = load_model(model)
    except UsageError:
        return lambda _: True
    if known_gpu is None:
        return lambda _: True
    memory_gib = known_gpu.memory_gib
    rules = flag_rules()
    return lambda c: rules.fits({**fixed.flags, **c.flags}, shape, memory_gib) is not False
