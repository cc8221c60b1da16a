"""The platform: vLLM's own for CPUs, and what vLLM-Omni 0.30 asks of one beside that."""

from __future__ import annotations

import os

import torch
from vllm.platforms.cpu import CpuPlatform
from vllm_omni.platforms.interface import OmniPlatform, OmniPlatformEnum


def _available_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class CpuOmniPlatform(OmniPlatform, CpuPlatform):
    """One CPU as the only device; everything is synchronous."""

    _omni_enum = OmniPlatformEnum.OOT
    device_control_env_var = "OMNI_CPU_DEVICES"

    @classmethod
    def get_diffusion_attn_backend_cls(
        cls, selected_backend: str | None, head_size: int, allow_trtllm_default: bool = False
    ) -> str:
        """Return PyTorch's attention; another is refused."""
        if selected_backend is not None and selected_backend.upper() != "TORCH_SDPA":
            raise ValueError(f"attention backend {selected_backend}: a CPU has TORCH_SDPA only")
        return "omni_cpu.attention.CpuAttention"

    @classmethod
    def supports_torch_inductor(cls) -> bool:
        return False

    @classmethod
    def supports_cpu_offload(cls) -> bool:
        return False

    @classmethod
    def get_torch_device(cls, local_rank: int | None = None) -> torch.device:
        return torch.device("cpu")

    @classmethod
    def get_device_count(cls) -> int:
        return 1

    @classmethod
    def get_device_version(cls) -> str | None:
        return None

    @classmethod
    def get_default_stage_config_path(cls) -> str:
        return "vllm_omni/deploy"

    @classmethod
    def synchronize(cls) -> None:
        return None

    @classmethod
    def empty_cache(cls) -> None:
        return None

    @classmethod
    def reset_peak_memory_stats(cls, device: object = None) -> None:
        return None

    @classmethod
    def max_memory_allocated(cls, device: object = None) -> int:
        return 0

    @classmethod
    def max_memory_reserved(cls, device: object = None) -> int:
        return 0

    @classmethod
    def get_free_memory(cls, device: torch.device | None = None) -> int:
        return _available_bytes()

    @classmethod
    def get_device_memory(cls, device: torch.device | None = None) -> tuple[int, int]:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return _available_bytes(), total
