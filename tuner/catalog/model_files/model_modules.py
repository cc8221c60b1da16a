"""The matrices of a language model under the names that released files give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tuner.catalog.model_files.layer_kinds import LayerKinds
from tuner.catalog.model_files.module_names import Module

Sizes = Mapping[str, Mapping[str, int]]  # parameters of one layer, by part and name of the matrix

_CHANNELS: Mapping[str, tuple[str, ...]] = {  # what holds a layer's MLP or experts
    "NemotronHForCausalLM": ("mixer",),
    "MixtralForCausalLM": ("block_sparse_moe", "mlp"),
    "Llama4ForConditionalGeneration": ("feed_forward",),
    "Llama4ForCausalLM": ("feed_forward",),
}
_SHARED = ("shared_expert", "shared_experts")
_ROUTERS = ("gate", "router")
# other names of a matrix: vLLM's fused modules, and those of other families
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("qkv_proj",),
    "k_proj": ("qkv_proj",),
    "v_proj": ("qkv_proj",),
    "q_a_proj": ("fused_qkv_a_proj",),
    "kv_a_proj_with_mqa": ("fused_qkv_a_proj",),
    "gate_proj": ("gate_up_proj", "w1", "w13"),
    "up_proj": ("gate_up_proj", "w3", "w13"),
    "down_proj": ("w2",),
    "in_proj_qkv": ("in_proj_qkvz",),
    "in_proj_z": ("in_proj_qkvz",),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}


def modules_of(architecture: str, kinds: LayerKinds, sizes: Sizes, experts: int) -> list[Module]:
    """Return every matrix; `experts` of each layer one by one, or 1 for all of them together."""
    channels = _CHANNELS.get(architecture, ("mlp",))
    mixer = "mixer" if architecture.startswith("NemotronH") else None
    found = [_module("head", ("",), "lm_head", sizes["head"]["lm_head"])]
    for layer, (mixes, channel) in enumerate(zip(kinds.mixers, kinds.channels, strict=True)):
        if mixes in ("full", "window"):
            found += _matrices("attention", layer, (mixer or "self_attn",), sizes)
        elif mixes == "state":
            found += _matrices("recurrent", layer, (mixer or "linear_attn",), sizes)
        if channel == "mlp":
            found += _matrices("mlp", layer, channels, sizes)
        elif channel == "experts":
            found += _experts(layer, channels, sizes, experts)
    return found


def experts_are_numbered(names: Iterable[str]) -> bool:
    """Say whether a list tells the experts of a layer apart."""
    return any(re.search(r"experts\.\d", name) for name in names)


def _experts(layer: int, channels: tuple[str, ...], sizes: Sizes, count: int) -> list[Module]:
    held = sizes["experts"]
    found = []
    for expert in range(count):
        prefixes = tuple(
            f"layers.{layer}.{channel}.experts{number}."
            for channel in channels
            for number in (f".{expert}", "")
        )
        found += [_module("experts", prefixes, name, size) for name, size in held.items()]
    plain = tuple(f"layers.{layer}.{channel}." for channel in channels)
    shared = tuple(f"{prefix}{name}." for prefix in plain for name in _SHARED)
    found += [
        _module("shared", plain if "latent" in name else shared, name, size)
        for name, size in sizes["shared"].items()
        if size
    ]
    paths = tuple(prefix + name for prefix in plain for name in _ROUTERS)
    return [*found, Module("shared", paths, sizes["router"]["gate"])]


def _matrices(part: str, layer: int, holders: tuple[str, ...], sizes: Sizes) -> list[Module]:
    prefixes = tuple(f"layers.{layer}.{holder}." for holder in holders)
    return [_module(part, prefixes, name, size) for name, size in sizes[part].items()]


def _module(part: str, prefixes: tuple[str, ...], name: str, parameters: int) -> Module:
    names = (name, *_ALIASES.get(name, ()))
    return Module(part, tuple(prefix + each for prefix in prefixes for each in names), parameters)
