"""Model config: parse a Hugging Face config.json into the shape of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.catalog.model_shape import (
    AttentionLayers,
    ExpertLayers,
    MlpLayers,
    ModelShape,
    RecurrentLayers,
    Weights,
)
from tuner.errors import UsageError, unknown_name

_GATED = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Mistral3ForConditionalGeneration",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3VLForConditionalGeneration",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Gemma3ForConditionalGeneration",
    "Phi3ForCausalLM",
    "GraniteForCausalLM",
    "Olmo2ForCausalLM",
    "MixtralForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3VLMoeForConditionalGeneration",
    "GptOssForCausalLM",
    "Llama4ForConditionalGeneration",
    "Llama4ForCausalLM",
)
_MLA = ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM")
_LINEAR_ATTENTION = (
    "Qwen3NextForCausalLM",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration",
)
_MAMBA = ("NemotronHForCausalLM",)
ARCHITECTURES = frozenset((*_GATED, *_MLA, *_LINEAR_ATTENTION, *_MAMBA))

# fields that released checkpoints leave to the defaults of transformers' own classes
_LEFT_OUT: Mapping[str, Mapping[str, int]] = {
    "Gemma3ForConditionalGeneration": {
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
    },
}

# bytes of a quantized parameter with its scales, and whether it is multiplied in 8 bits
_FORMATS: Mapping[str, Weights] = {
    "fp8": Weights(1.0, fp8=True),
    "fbgemm_fp8": Weights(1.0, fp8=True),
    "mxfp4": Weights(4.25 / 8),
}
_GROUP_SCALE_BITS = 32  # a 16-bit scale and a zero point for each group
_STATE_ELEMENT_BYTES = 4


def shape_of(name: str, config: Mapping[str, Any]) -> ModelShape:
    """Read a Hugging Face configuration; raises `UsageError` if it cannot be emulated."""
    architecture = _architecture(name, config)
    nested = config.get("text_config")
    text = nested if isinstance(nested, dict) else {}
    reader = _Reader(architecture, {**_LEFT_OUT.get(architecture, {}), **config, **text})
    try:
        return reader.shape(name, _formats(name, config, reader.layers))
    except KeyError as error:
        raise UsageError(f"model '{name}': its config.json has no field {error}") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"model '{name}': its config.json is wrong: {error}") from None


@dataclass(frozen=True, slots=True)
class _Reader:
    """One config.json, with its text part on top."""

    architecture: str
    text: Mapping[str, Any]

    @property
    def layers(self) -> int:
        return int(self.text.get("num_hidden_layers") or 0)

    def shape(self, name: str, weights: Callable[[str], Weights]) -> ModelShape:
        text = self.text
        mla = self.architecture in _MLA
        moe = self._moe(weights)
        mlp = self._mlp(moe, weights)
        width = text.get("moe_intermediate_size") if moe else None
        return ModelShape(
            name=name,
            layers=int(text["num_hidden_layers"]),
            hidden=int(text["hidden_size"]),
            heads=int(text["num_attention_heads"]),
            kv_heads=1 if mla else self._kv_heads(),
            intermediate=int(width or text["intermediate_size"]),
            vocabulary=int(text["vocab_size"]),
            max_position=int(text["max_position_embeddings"]),
            tied_embeddings=bool(text.get("tie_word_embeddings", "Gemma" in self.architecture)),
            attention=self._mla(weights) if mla else self._attention(weights),
            mlp=mlp,
            moe=moe,
            recurrent=self._recurrent(weights),
        )

    def _kv_heads(self) -> int:
        return int(self.text.get("num_key_value_heads") or self.text["num_attention_heads"])

    def _head_dim(self) -> int:
        text = self.text
        given = text.get("head_dim") or text.get("attention_head_dim")
        return int(given or int(text["hidden_size"]) // int(text["num_attention_heads"]))

    def _kinds(self) -> list[str]:
        """The token mixer of each layer: attention, sliding window, recurrent state, or none."""
        text, layers = self.text, int(self.text["num_hidden_layers"])
        if self.architecture in _MAMBA:
            kinds = {"M": "state", "*": "full"}
            return [kinds.get(letter, "none") for letter in text["hybrid_override_pattern"]]
        if text.get("layer_types"):
            names = {"linear_attention": "state", "full_attention": "full"}
            return [names.get(str(kind), "window") for kind in text["layer_types"]]
        if self.architecture in _LINEAR_ATTENTION:
            every = int(text["full_attention_interval"])
            return ["state" if (i + 1) % every else "full" for i in range(layers)]
        return [self._gated_kind(i) for i in range(layers)]

    def _gated_kind(self, layer: int) -> str:
        text = self.text
        if not self._window() or text.get("use_sliding_window") is False:
            return "full"
        pattern = {"Gemma2ForCausalLM": 2, "GptOssForCausalLM": 2}.get(self.architecture)
        if "Gemma3" in self.architecture:
            pattern = int(text.get("sliding_window_pattern") or 6)
        if "Llama4" in self.architecture:
            pattern = 4
        if pattern is None:
            return "window"
        return "window" if (layer + 1) % pattern else "full"

    def _window(self) -> int:
        return int(self.text.get("sliding_window") or self.text.get("attention_chunk_size") or 0)

    def _attention(self, weights: Callable[[str], Weights]) -> AttentionLayers:
        text = self.text
        heads, kv_heads, head = int(text["num_attention_heads"]), self._kv_heads(), self._head_dim()
        kinds = self._kinds()
        queries = heads * (2 if self.architecture in _LINEAR_ATTENTION else 1)  # with a gate
        return AttentionLayers(
            layers=kinds.count("full") + kinds.count("window"),
            parameters=int(text["hidden_size"]) * head * (queries + heads + 2 * kv_heads),
            kv_elements=2 * head,
            pair_flop=4.0 * heads * head,
            window_layers=kinds.count("window"),
            window_tokens=self._window(),
            weights=weights("attention"),
        )

    def _mla(self, weights: Callable[[str], Weights]) -> AttentionLayers:
        text = self.text
        hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        nope, rope = int(text["qk_nope_head_dim"]), int(text["qk_rope_head_dim"])
        rank, value = int(text["kv_lora_rank"]), int(text["v_head_dim"])
        q_rank = text.get("q_lora_rank")
        query = heads * (nope + rope)
        queries = hidden * query if q_rank is None else int(q_rank) * (hidden + query)
        rest = hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden
        return AttentionLayers(
            layers=int(text["num_hidden_layers"]),
            parameters=queries + rest,
            kv_elements=rank + rope,
            pair_flop=2.0 * heads * (2 * rank + rope),
            latent=True,
            weights=weights("attention"),
        )

    def _expert_count(self) -> int:
        text = self.text
        names = ("num_local_experts", "n_routed_experts", "num_experts")
        if self.architecture in _MAMBA:
            return 0
        return next((int(text[name]) for name in names if text.get(name)), 0)

    def _expert_layers(self) -> int:
        text, layers = self.text, int(self.text["num_hidden_layers"])
        if text.get("interleave_moe_layer_step"):
            return layers // int(text["interleave_moe_layer_step"])
        every = int(text.get("decoder_sparse_step") or text.get("moe_layer_freq") or 1)
        dense = int(text.get("first_k_dense_replace") or 0) + len(text.get("mlp_only_layers") or ())
        return (layers - dense) // every

    def _moe(self, weights: Callable[[str], Weights]) -> ExpertLayers | None:
        text, count = self.text, self._expert_count()
        if count <= 1:
            return None
        hidden = int(text["hidden_size"])
        width = int(text.get("moe_intermediate_size") or text["intermediate_size"])
        shared = int(text.get("shared_expert_intermediate_size") or 0)
        shared += int(text.get("n_shared_experts") or 0) * width
        shared += width if "Llama4" in self.architecture else 0
        return ExpertLayers(
            layers=self._expert_layers(),
            count=count,
            active=int(text.get("num_experts_per_tok") or text["experts_per_token"]),
            parameters=3 * hidden * width,
            shared_parameters=3 * hidden * shared + hidden * count,
            weights=weights("experts"),
            shared_weights=weights("shared"),
            reads_all=self._reads_all(),
        )

    def _reads_all(self) -> bool:
        """Say whether vLLM's kernel for experts in blocks of 8 bits reads those without a token.

        DeepSeek's are run by FlashInfer, which does not.
        """
        quantization = self.text.get("quantization_config") or {}
        return quantization.get("quant_method") == "fp8" and self.architecture not in _MLA

    def _mlp(self, moe: ExpertLayers | None, weights: Callable[[str], Weights]) -> MlpLayers | None:
        text = self.text
        layers = int(text["num_hidden_layers"]) - (0 if moe is None else moe.layers)
        matrices = 3
        if self.architecture in _MAMBA:
            layers, matrices = str(text["hybrid_override_pattern"]).count("-"), 2
        if layers == 0:
            return None
        width = int(text.get("intermediate_size_mlp") or text["intermediate_size"])
        return MlpLayers(layers, matrices * int(text["hidden_size"]) * width, weights("mlp"))

    def _recurrent(self, weights: Callable[[str], Weights]) -> RecurrentLayers | None:
        text, layers = self.text, self._kinds().count("state")
        if layers == 0:
            return None
        hidden = int(text["hidden_size"])
        if self.architecture in _MAMBA:
            heads, state = int(text["mamba_num_heads"]), int(text["ssm_state_size"])
            inner = heads * int(text["mamba_head_dim"])
            projected = 2 * inner + 2 * int(text["n_groups"]) * state + heads
            elements = inner * state
        else:
            heads, key = int(text["linear_num_value_heads"]), int(text["linear_key_head_dim"])
            inner = heads * int(text["linear_value_head_dim"])
            projected = 2 * inner + 2 * int(text["linear_num_key_heads"]) * key + 2 * heads
            elements = inner * key
        return RecurrentLayers(
            layers=layers,
            parameters=hidden * (projected + inner),
            state_bytes=elements * _STATE_ELEMENT_BYTES,
            weights=weights("recurrent"),
        )


def _architecture(name: str, config: Mapping[str, Any]) -> str:
    found = config.get("architectures")
    if not isinstance(found, list) or not found:
        raise UsageError(f"model '{name}': its config.json has no field 'architectures'")
    if found[0] not in ARCHITECTURES:
        raise UsageError(
            f"model '{name}': the architecture '{found[0]}' is not emulated; if its layers are "
            f"those of one that is ({', '.join(sorted(ARCHITECTURES))}), name that one in a copy "
            "of its config.json"
        )
    return str(found[0])


_PART_NAMES: Mapping[str, tuple[str, ...]] = {
    "attention": ("self_attn", "attention"),
    "mlp": ("mlp", "feed_forward"),
    "experts": ("experts",),
    "shared": ("shared_expert",),
    "recurrent": ("linear_attn", "mamba", "mixer"),
}


def _formats(name: str, config: Mapping[str, Any], layers: int) -> Callable[[str], Weights]:
    """Return a function from a kind of layer to its format, by the quantization's exclusions."""
    quantization = config.get("quantization_config")
    if quantization is None:
        return lambda _: Weights()
    quantized = _quantized(name, quantization)
    excluded = [
        str(module)
        for field in ("modules_to_not_convert", "ignore", "ignored_layers")
        for module in quantization.get(field) or ()
    ]
    # the released MXFP4 checkpoints quantize only the experts
    only_experts = str(quantization.get("quant_method")) == "mxfp4"

    def weights(part: str) -> Weights:
        if only_experts and part != "experts":
            return Weights()
        return Weights() if _left_out(part, excluded, layers) else quantized

    return weights


def _left_out(part: str, excluded: list[str], layers: int) -> bool:
    """Say whether most layers of a part are excluded; a name without a number means all."""
    numbers = set()
    for module in excluded:
        last = module.rsplit(".", 1)[-1]
        if part in ("mlp", "experts") and any(word in last for word in ("router", "norm")):
            continue
        if part in ("mlp", "experts") and (last == "gate" or "shared" in module):
            continue
        if not any(name in module for name in _PART_NAMES[part]):
            continue
        number = re.search(r"\.(\d+)\.", module)
        if number is None:
            return True
        numbers.add(number.group(1))
    return len(numbers) * 2 > layers


def _quantized(name: str, quantization: Mapping[str, Any]) -> Weights:
    method = str(quantization.get("quant_method"))
    if method in _FORMATS:
        return _FORMATS[method]
    if method in ("awq", "gptq"):
        return _grouped(int(quantization.get("bits", 4)), quantization.get("group_size"))
    if method == "compressed-tensors":
        group = next(iter(quantization["config_groups"].values()))["weights"]
        bits = int(group["num_bits"])
        if bits == 8:
            return Weights(1.0, fp8=group.get("type") == "float")
        return _grouped(bits, group.get("group_size"))
    known = [*_FORMATS, "awq", "gptq", "compressed-tensors"]
    raise UsageError(f"model '{name}': " + unknown_name("quant_method", method, known))


def _grouped(bits: int, group_size: object) -> Weights:
    group = int(group_size) if isinstance(group_size, (int, float)) and group_size > 0 else 0
    return Weights((bits + (_GROUP_SCALE_BITS / group if group else 0.0)) / 8)
