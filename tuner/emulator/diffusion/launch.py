"""How an emulated vLLM-Omni is launched: its flags, their defaults, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tuner.catalog.diffusion.model import DiffusionModel
from tuner.catalog.gpu import Gpu
from tuner.configuration import Value
from tuner.emulator.refusal import LaunchRefusedError
from tuner.errors import UsageError, unknown_name

_DEFAULTS: Mapping[str, int] = {
    "max_num_seqs": 1,
    "request_batch_max_wait_ms": 0,
    "ulysses_degree": 1,
    "ring_degree": 1,
    "cfg_parallel_size": 1,
}
GIB = 2**30
KEPT_GIB = 2.0  # of each GPU, by the driver and the framework


@dataclass(frozen=True, slots=True)
class DiffusionLaunch:
    """A configuration that starts, with every default filled in."""

    max_num_seqs: int
    request_batch_max_wait_ms: int
    ulysses_degree: int
    ring_degree: int
    cfg_parallel_size: int

    @property
    def sequence_gpus(self) -> int:
        """How many GPUs share the tokens of a pass."""
        return self.ulysses_degree * self.ring_degree

    @property
    def gpus(self) -> int:
        """GPUs of the whole server."""
        return self.sequence_gpus * self.cfg_parallel_size


def diffusion_defaults() -> Mapping[str, Value]:
    """Return the values of the flags that are not set."""
    return dict(_DEFAULTS)


def check_diffusion_flags(names: Iterable[str]) -> None:
    """Raise `UsageError` for the first flag whose effect is not emulated."""
    for name in names:
        if name not in _DEFAULTS:
            raise UsageError(unknown_name("emulated flag", name, _DEFAULTS))


def resolve_diffusion(
    model: DiffusionModel, gpu: Gpu, flags: Mapping[str, Value]
) -> DiffusionLaunch:
    """Fill in the defaults and decide whether the server starts.

    Raises `UsageError` for an unknown flag or a value of the wrong type, `LaunchRefusedError` for
    a configuration that does not start.
    """
    check_diffusion_flags(flags)
    values = dict(_DEFAULTS)
    for name, value in flags.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(f"{name} must be a whole number, found {value!r}")
        if value < _DEFAULTS[name]:
            raise LaunchRefusedError(f"{name} must be at least {_DEFAULTS[name]}, found {value}")
        values[name] = value
    launch = DiffusionLaunch(**values)
    if launch.cfg_parallel_size > model.passes:
        raise LaunchRefusedError(
            f"cfg_parallel_size {launch.cfg_parallel_size} is more than the passes of {model.name} "
            f"in a step ({model.passes})"
        )
    if launch.gpus > gpu.max_gpus:
        raise LaunchRefusedError(f"{launch.gpus} GPUs are needed, there are {gpu.max_gpus}")
    free = (gpu.memory_gib - KEPT_GIB) * GIB
    if model.weight_bytes > free:
        raise LaunchRefusedError(
            f"CUDA out of memory: {model.name} has weights of {model.weight_bytes / GIB:.0f} GiB, "
            f"{free / GIB:.0f} GiB of each GPU are free"
        )
    return launch
