"""vLLM's flags: parallelism (tensor, pipeline, data), what it refuses, what fits into memory."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from tuner.configuration import Configuration, Value
from tuner.emulator.http.flag_numbers import as_number
from tuner.servers.server import AdjustableLimits, Flags
from tuner.servers.vllm.adjustable import SEQS, TOKENS, VllmLimits
from tuner.servers.vllm.memory_fit import fits

if TYPE_CHECKING:
    from tuner.catalog.model import ModelShape

# Precision, and a rejection of drafts that is not exact. Speculation keeps the distribution of the
# answers otherwise, and greedy ones up to rounding.
_OUTPUT_FLAGS = frozenset(
    (
        "model",  # another checkpoint
        "quantization",
        "quantization_config",
        "kv_cache_dtype",
        "calculate_kv_scales",
        "dtype",
        "hf_overrides",
        "speculative_config.rejection_sample_method",
        "speculative_config.quantization",
    )
)


class VllmFlags:
    """Rules of vLLM's flags, known without starting a server."""

    parallel_sizes: tuple[str, ...] = (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
    )
    context_flag = "max_model_len"
    memory_flags = ("tensor_parallel_size", "max_model_len")
    limits: AdjustableLimits = VllmLimits()
    sleep_flags: Flags = MappingProxyType({"enable_sleep_mode": True})

    def word(self, name: str, value: Value) -> str:
        """Return one flag as vLLM's command line wants it."""
        flag, dot, field = name.partition(".")
        dashed = flag.replace("_", "-")
        if dot:  # vLLM reads the value of a field as JSON, or else as a text
            written = json.dumps(value) if isinstance(value, bool) else value
            return f"--{dashed}.{field}={written}"
        if isinstance(value, bool):
            return f"--{dashed}" if value else f"--no-{dashed}"
        return f"--{dashed}={value}"

    def value(self, name: str, value: Value) -> Value:
        """Return a value as vLLM reads it: 16k is 16,000 tokens, 16K is 16,384, auto is -1."""
        return as_number(name, value)

    def gpus_used(self, configuration: Configuration) -> int:
        """Return how many GPUs a server with these flags takes."""
        return math.prod(int(configuration.flags.get(size, 1)) for size in self.parallel_sizes)

    def refusal(self, flags: Flags) -> str | None:
        """Say why vLLM would refuse to start: a step must have room for a token of each request.

        vLLM sees to it by itself where a flag is left out.
        """
        seqs, tokens = flags.get(SEQS), flags.get(TOKENS)
        if not isinstance(seqs, int) or not isinstance(tokens, int) or tokens >= seqs:
            return None
        return (
            f"{TOKENS} ({tokens}) must be greater than or equal to {SEQS} ({seqs}): vLLM does "
            "not start with these"
        )

    def changes_outputs(self, name: str) -> bool:
        """Say whether a flag, or a field of one, changes what the model computes, not only how."""
        return name in _OUTPUT_FLAGS or name.partition(".")[0] in _OUTPUT_FLAGS

    def needs_text(self, name: str) -> bool:
        """Say whether a flag is about drafts, of which more are accepted where text repeats."""
        return name.partition(".")[0] == "speculative_config"

    def suits(self, flags: Flags, model: ModelShape) -> bool:
        """Say whether the heads can be divided, and whether there are experts to spread."""
        if flags.get("enable_expert_parallel") is True and model.moe is None:
            return False
        return model.heads % int(flags.get("tensor_parallel_size", 1)) == 0

    def fits(self, flags: Flags, model: ModelShape, memory_gib: float) -> bool | None:
        """Say whether the weights and one request of full length fit into each GPU."""
        return fits(model, memory_gib, flags)
