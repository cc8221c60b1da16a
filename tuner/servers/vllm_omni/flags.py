"""vLLM-Omni's flags: those of `vllm serve`, and with `--omni` those of diffusion models.

Source: `vllm_omni/entrypoints/cli/serve.py` of vLLM-Omni 0.30.
"""

from __future__ import annotations

from tuner.configuration import Value
from tuner.servers.server import Flags
from tuner.servers.vllm.flags import VllmFlags

_OWN_SIZES = ("ulysses_degree", "ring_degree", "cfg_parallel_size")
# Steps that are left out or taken from a cache, and attention that is not exact.
_OUTPUT_FLAGS = frozenset(
    (
        "cache_backend",
        "cache_config",
        "diffusion_quantization_config",
        "diffusion_attention_backend",
        "diffusion_attention_config",
        "diffusion_kv_cache_dtype",
        "fastvideo_vsa_topk",
        "vae_fast_path",
        "num_inference_steps",
    )
)
_SWITCHES = frozenset(
    (
        "vae_use_tiling",
        "vae_use_slicing",
        "step_execution",
        "enable_cpu_offload",
        "enable_layerwise_offload",
        "use_hsdp",
    )
)


class OmniFlags(VllmFlags):
    """Rules of the flags of vLLM and of vLLM-Omni, which takes both."""

    parallel_sizes: tuple[str, ...] = (*VllmFlags.parallel_sizes, *_OWN_SIZES)

    def word(self, name: str, value: Value) -> str:
        """Return one flag as the command line wants it; a switch can only be given."""
        if name in _SWITCHES and value is True:
            return f"--{name.replace('_', '-')}"
        return super().word(name, value)

    def refusal(self, flags: Flags) -> str | None:
        """Say why the server would refuse to start, as far as that is known beforehand."""
        for name in sorted(_SWITCHES & flags.keys()):
            if flags[name] is not True:
                return f"{name} is a switch, which can only be given: leave it out, or set it true"
        return super().refusal(flags)

    def changes_outputs(self, name: str) -> bool:
        """Say whether a flag, or a field of one, changes what is made."""
        flag = name.partition(".")[0]
        return flag in _OUTPUT_FLAGS or super().changes_outputs(name)
