"""Memory fit: predict, without a launch, which configurations a model surely does not run in."""

from __future__ import annotations

from collections.abc import Callable

from tuner.catalog.gpu_names import emulated_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.servers.registry import flag_rules


def fitting(model: str, gpu: str) -> Callable[[Configuration], bool]:
    """Return a predicate: False for full configurations that surely do not fit, else True.

    `gpu` is the GPU's name as NVML or the emulator gives it. Experts and heads decide how a model
    can be spread, its memory whether it fits; a model's shape or a GPU that is not known is True.
    """
    known_gpu = emulated_gpu(gpu)
    try:
        shape = load_model(model)
    except UsageError:
        return lambda _: True
    rules = flag_rules()

    def may_run(full: Configuration) -> bool:
        flags = full.flags
        if not rules.suits(flags, shape):
            return False
        return known_gpu is None or rules.fits(flags, shape, known_gpu.memory_gib) is not False

    return may_run
