"""Memory fit: predict, without a launch, which configurations exceed the GPU's memory."""

from __future__ import annotations

from collections.abc import Callable

from tuner.catalog.gpu_names import emulated_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.servers.registry import flag_rules


def fitting(model: str, gpu: str, fixed: Configuration) -> Callable[[Configuration], bool]:
    """Return a predicate: False for configurations that surely do not fit, else True.

    `gpu` is the GPU's name as NVML or the emulator gives it. If the model's shape or the GPU is
    unknown, the predicate is always True.
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
