"""What each layer of a model is: its token mixer, and its MLP or mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuner.errors import UsageError, unknown_name

Mixer = Literal["full", "window", "state", "none"]
Channel = Literal["mlp", "experts", "none"]

_LETTERS: Mapping[str, tuple[Mixer, Channel]] = {
    "M": ("state", "none"),
    "*": ("full", "none"),
    "-": ("none", "mlp"),
    "E": ("none", "experts"),
}
_BLOCKS: Mapping[str, str] = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
_TYPES: Mapping[str, Mixer] = {
    "full_attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "window",
    "linear_attention": "state",
}
_MOST_LAYERS = 10_000
_EXPERT_COUNTS = ("num_local_experts", "n_routed_experts", "num_experts")


@dataclass(frozen=True, slots=True)
class LayerKinds:
    """One entry for each layer, in order."""

    mixers: tuple[Mixer, ...]
    channels: tuple[Channel, ...]

    @property
    def count(self) -> int:
        """Number of layers."""
        return len(self.mixers)


def layer_kinds(architecture: str, text: Mapping[str, Any]) -> LayerKinds:
    """Read them from the fields of a config.json.

    Raises `UsageError` for a kind that is not known, `KeyError` for a field that is missing.
    """
    if architecture.startswith("NemotronH"):
        blocks = [_LETTERS[letter] for letter in _pattern(text)]
        return LayerKinds(tuple(m for m, _ in blocks), tuple(c for _, c in blocks))
    layers = int(text["num_hidden_layers"])
    if not 1 <= layers <= _MOST_LAYERS:
        raise UsageError(f"'num_hidden_layers' is {layers:.4g}: a model has 1 to {_MOST_LAYERS:,}")
    mixers = tuple(_mixers(architecture, text, layers))
    if len(mixers) != layers:
        raise UsageError(f"'layer_types' has {len(mixers)} entries for {layers} layers")
    has_experts = any(int(text.get(name) or 0) > 1 for name in _EXPERT_COUNTS)
    channels = tuple(_channel(text, i) if has_experts else "mlp" for i in range(layers))
    return LayerKinds(mixers, channels)


def _pattern(text: Mapping[str, Any]) -> str:
    """Return one letter for each layer; newer files name them in a list."""
    if listed := text.get("layers_block_type"):
        unknown = [kind for kind in listed if kind not in _BLOCKS]
        if unknown:
            raise UsageError(unknown_name("kind in 'layers_block_type'", str(unknown[0]), _BLOCKS))
        return "".join(_BLOCKS[kind] for kind in listed)
    pattern = str(text["hybrid_override_pattern"])
    for letter in pattern:
        if letter not in _LETTERS:
            raise UsageError(unknown_name("letter in 'hybrid_override_pattern'", letter, _LETTERS))
    return pattern


def _mixers(architecture: str, text: Mapping[str, Any], layers: int) -> list[Mixer]:
    if listed := text.get("layer_types"):
        unknown = [str(kind) for kind in listed if str(kind) not in _TYPES]
        if unknown:
            raise UsageError(unknown_name("kind in 'layer_types'", unknown[0], _TYPES))
        return [_TYPES[str(kind)] for kind in listed]
    if architecture.startswith(("Qwen3Next", "Qwen3_5")):
        every = int(text["full_attention_interval"])
        return ["state" if (i + 1) % every else "full" for i in range(layers)]
    return [_attention_kind(architecture, text, i) for i in range(layers)]


def _attention_kind(architecture: str, text: Mapping[str, Any], layer: int) -> Mixer:
    window = int(text.get("sliding_window") or text.get("attention_chunk_size") or 0)
    if not window or text.get("use_sliding_window") is False:
        return "full"
    pattern = {"Gemma2ForCausalLM": 2, "GptOssForCausalLM": 2}.get(architecture)
    if "Gemma3" in architecture:
        pattern = int(text.get("sliding_window_pattern") or 6)
    if "Llama4" in architecture:
        pattern = 4
    if pattern is None:
        return "window"
    return "window" if (layer + 1) % pattern else "full"


def _channel(text: Mapping[str, Any], layer: int) -> Channel:
    """Say whether a layer of a model with experts has them."""
    if text.get("interleave_moe_layer_step"):
        return "mlp" if (layer + 1) % int(text["interleave_moe_layer_step"]) else "experts"
    if layer < int(text.get("first_k_dense_replace") or 0):
        return "mlp"
    if layer in (text.get("mlp_only_layers") or ()):
        return "mlp"
    every = text.get("moe_layer_freq") or 1
    if isinstance(every, list):
        return "experts" if every[layer] else "mlp"
    every = int(text.get("decoder_sparse_step") or every)
    return "mlp" if (layer + 1) % every else "experts"
