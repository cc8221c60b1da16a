"""Attention on a CPU: vLLM-Omni's PyTorch backend, which knows no other platform than its own."""

from __future__ import annotations

import torch
from vllm_omni.diffusion.attention.backends.abstract import AttentionMetadata
from vllm_omni.diffusion.attention.backends.sdpa import SDPABackend, SDPAImpl


class CpuAttentionImpl(SDPAImpl):
    """The same for every platform."""

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_metadata: AttentionMetadata | None = None,
    ) -> torch.Tensor:
        """Run scaled dot-product attention."""
        return self._forward_impl(query, key, value, attn_metadata, mask_mode="broadcast_k")


class CpuAttention(SDPABackend):
    """The backend that `CpuOmniPlatform` names."""

    @staticmethod
    def get_impl_cls() -> type[SDPAImpl]:
        return CpuAttentionImpl
