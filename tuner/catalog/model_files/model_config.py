"""Model config: parse a Hugging Face config.json into the shape of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuner.catalog.model_files.layer_kinds import LayerKinds, layer_kinds
from tuner.catalog.model_files.model_modules import experts_are_numbered, modules_of
from tuner.catalog.model_files.quantization import Quantization, quantization_of
from tuner.catalog.model_shape import (
    AttentionLayers,
    ExpertLayers,
    MlpLayers,
    ModelShape,
    RecurrentLayers,
    Weights,
)
from tuner.errors import UsageError

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

_MOST_BYTES = 1e15  # hundreds of times the largest model there is
_STATE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


def shape_of(
    name: str, config: Mapping[str, Any], sidecar: Mapping[str, Any] | None = None
) -> ModelShape:
    """Read a Hugging Face configuration; `sidecar` is the hf_quant_config.json beside it.

    Raises `UsageError` if it cannot be emulated.
    """
    architecture = _architecture(name, config)
    nested = config.get("text_config")
    text = nested if isinstance(nested, dict) else {}
    fields = {**_LEFT_OUT.get(architecture, {}), **config, **text}
    try:
        reader = _Reader(architecture, fields, layer_kinds(architecture, fields))
        return _sound(reader.shape(name, quantization_of(config, sidecar)))
    except UsageError as error:
        raise UsageError(f"model '{name}': {error}") from None
    except KeyError as error:
        raise UsageError(f"model '{name}': its config.json has no field {error}") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(f"model '{name}': its config.json is wrong: {error}") from None


def _sound(shape: ModelShape) -> ModelShape:
    """Return the shape; raises `ValueError` or `OverflowError` if no model can be of this size."""
    counts = (shape.parameters, shape.hidden, shape.heads, shape.kv_heads, shape.vocabulary)
    if min(counts) < 1 or min(shape.loaded_bytes, shape.expert_bytes, shape.state_bytes) < 0.0:
        raise ValueError("a count is negative, or 0")
    if not shape.loaded_bytes < _MOST_BYTES:
        raise ValueError(f"its weights would take {shape.loaded_bytes:.1e} bytes")
    return shape


@dataclass(frozen=True)
class _Reader:
    """One config.json, with its text part on top."""

    architecture: str
    text: Mapping[str, Any]
    kinds: LayerKinds

    def shape(self, name: str, quantization: Quantization) -> ModelShape:
        text, kinds = self.text, self.kinds
        mla = self.architecture in _MLA
        weights = self._formats(quantization)
        moe = self._moe(weights, quantization)
        width = text.get("moe_intermediate_size") if moe else None
        tied = bool(text.get("tie_word_embeddings", "Gemma" in self.architecture))
        return ModelShape(
            name=name,
            layers=kinds.count,
            hidden=int(text["hidden_size"]),
            heads=int(text["num_attention_heads"]),
            kv_heads=1 if mla else self._kv_heads(),
            intermediate=int(width or text["intermediate_size"]),
            vocabulary=int(text["vocab_size"]),
            max_position=max_position(text),
            tied_embeddings=tied,
            attention=self._mla(weights) if mla else self._attention(weights),
            mlp=self._mlp(weights),
            moe=moe,
            recurrent=self._recurrent(weights),
            head_weights=Weights() if tied else weights("head"),
            kv_bytes=quantization.kv_bytes,
        )

    def _formats(self, quantization: Quantization) -> Callable[[str], Weights]:
        """Return a function from a kind of layer to the mean format of its matrices."""
        experts = self._expert_count() if experts_are_numbered(quantization.names) else 1
        modules = modules_of(self.architecture, self.kinds, self._sizes, experts)
        quantization.check(modules)
        stored: dict[str, list[tuple[int, Weights]]] = {}
        for module in modules:
            each = (module.parameters, quantization.of(module))
            stored.setdefault(module.part, []).append(each)
        means = {part: _mean(formats) for part, formats in stored.items()}
        return lambda part: means.get(part, Weights())

    @cached_property
    def _sizes(self) -> Mapping[str, Mapping[str, int]]:
        """Parameters of each matrix of one layer, by kind of layer and name of the matrix."""
        sizes: dict[str, Mapping[str, int]] = {
            "attention": self._mla_sizes() if self.architecture in _MLA else self._head_sizes(),
            "head": {"lm_head": int(self.text["hidden_size"]) * int(self.text["vocab_size"])},
        }
        if "state" in self.kinds.mixers:
            sizes["recurrent"] = self._recurrent_sizes()
        if "mlp" in self.kinds.channels:
            width = int(self.text.get("intermediate_size_mlp") or self.text["intermediate_size"])
            sizes["mlp"] = self._mlp_sizes(int(self.text["hidden_size"]), width)
        if "experts" in self.kinds.channels:
            sizes |= self._expert_sizes()
        return sizes

    def _mlp_sizes(self, hidden: int, width: int) -> Mapping[str, int]:
        names = (
            ("up_proj", "down_proj") if self._is_mamba else ("gate_proj", "up_proj", "down_proj")
        )
        return dict.fromkeys(names, hidden * width)

    def _expert_sizes(self) -> dict[str, Mapping[str, int]]:
        text, hidden, count = self.text, int(self.text["hidden_size"]), self._expert_count()
        latent = int(text.get("moe_latent_size") or 0)
        one = self._mlp_sizes(latent or hidden, self._expert_width())
        shared = dict(self._mlp_sizes(hidden, self._shared_width()))
        if latent:
            shared |= {"fc1_latent_proj": hidden * latent, "fc2_latent_proj": hidden * latent}
        return {"experts": one, "shared": shared, "router": {"gate": hidden * count}}

    def _expert_width(self) -> int:
        return int(self.text.get("moe_intermediate_size") or self.text["intermediate_size"])

    def _shared_width(self) -> int:
        text, width = self.text, self._expert_width()
        if self._is_mamba:
            copies = int(text.get("n_shared_experts") or 0)
            return copies * int(text.get("moe_shared_expert_intermediate_size") or 0)
        shared = int(text.get("shared_expert_intermediate_size") or 0)
        shared += int(text.get("n_shared_experts") or 0) * width
        return shared + (width if "Llama4" in self.architecture else 0)

    @property
    def _is_mamba(self) -> bool:
        return self.architecture in _MAMBA

    def _kv_heads(self) -> int:
        return int(self.text.get("num_key_value_heads") or self.text["num_attention_heads"])

    def _head_dim(self) -> int:
        text = self.text
        given = text.get("head_dim") or text.get("attention_head_dim")
        return int(given or int(text["hidden_size"]) // int(text["num_attention_heads"]))

    def _window(self) -> int:
        return int(self.text.get("sliding_window") or self.text.get("attention_chunk_size") or 0)

    def _head_sizes(self) -> Mapping[str, int]:
        heads, kv_heads, head = self._heads(), self._kv_heads(), self._head_dim()
        hidden = int(self.text["hidden_size"])
        queries = heads * (2 if self.architecture in _LINEAR_ATTENTION else 1)  # with a gate
        return {
            "q_proj": hidden * head * queries,
            "k_proj": hidden * head * kv_heads,
            "v_proj": hidden * head * kv_heads,
            "o_proj": hidden * head * heads,
        }

    def _mla_sizes(self) -> Mapping[str, int]:
        text, hidden, heads = self.text, int(self.text["hidden_size"]), self._heads()
        nope, rope = int(text["qk_nope_head_dim"]), int(text["qk_rope_head_dim"])
        rank, value = int(text["kv_lora_rank"]), int(text["v_head_dim"])
        query, q_rank = heads * (nope + rope), text.get("q_lora_rank")
        queries = {"q_proj": hidden * query}
        if q_rank is not None:
            queries = {"q_a_proj": hidden * int(q_rank), "q_b_proj": int(q_rank) * query}
        return {
            **queries,
            "kv_a_proj_with_mqa": hidden * (rank + rope),
            "kv_b_proj": rank * heads * (nope + value),
            "o_proj": heads * value * hidden,
        }

    def _heads(self) -> int:
        return int(self.text["num_attention_heads"])

    def _attention(self, weights: Callable[[str], Weights]) -> AttentionLayers:
        heads, head, mixers = self._heads(), self._head_dim(), self.kinds.mixers
        return AttentionLayers(
            layers=mixers.count("full") + mixers.count("window"),
            parameters=sum(self._sizes["attention"].values()),
            kv_elements=2 * head,
            pair_flop=4.0 * heads * head,
            window_layers=mixers.count("window"),
            window_tokens=self._window(),
            weights=weights("attention"),
        )

    def _mla(self, weights: Callable[[str], Weights]) -> AttentionLayers:
        text = self.text
        rank, rope = int(text["kv_lora_rank"]), int(text["qk_rope_head_dim"])
        return AttentionLayers(
            layers=self.kinds.count,
            parameters=sum(self._sizes["attention"].values()),
            kv_elements=rank + rope,
            pair_flop=2.0 * self._heads() * (2 * rank + rope),
            latent=True,
            weights=weights("attention"),
        )

    def _expert_count(self) -> int:
        names = ("num_local_experts", "n_routed_experts", "num_experts")
        return next((int(self.text[name]) for name in names if self.text.get(name)), 0)

    def _moe(
        self, weights: Callable[[str], Weights], quantization: Quantization
    ) -> ExpertLayers | None:
        if "experts" not in self.kinds.channels:
            return None
        text, sizes = self.text, self._sizes
        both = {**sizes["shared"], **sizes["router"]}
        return ExpertLayers(
            layers=self.kinds.channels.count("experts"),
            count=self._expert_count(),
            active=int(text.get("num_experts_per_tok") or text["experts_per_token"]),
            parameters=sum(sizes["experts"].values()),
            shared_parameters=sum(both.values()),
            weights=weights("experts"),
            shared_weights=weights("shared"),
            # DeepSeek's are run by FlashInfer, which passes over those without a token
            reads_all=quantization.block_experts and self.architecture not in _MLA,
        )

    def _mlp(self, weights: Callable[[str], Weights]) -> MlpLayers | None:
        layers = self.kinds.channels.count("mlp")
        if layers == 0:
            return None
        return MlpLayers(layers, sum(self._sizes["mlp"].values()), weights("mlp"))

    def _recurrent_sizes(self) -> Mapping[str, int]:
        text, hidden, inner = self.text, int(self.text["hidden_size"]), self._inner()
        if self._is_mamba:
            heads, state = int(text["mamba_num_heads"]), int(text["ssm_state_size"])
            projected = 2 * inner + 2 * int(text["n_groups"]) * state + heads
            return {"in_proj": hidden * projected, "out_proj": hidden * inner}
        key = int(text["linear_num_key_heads"]) * int(text["linear_key_head_dim"])
        return {
            "in_proj_qkv": hidden * (inner + 2 * key),
            "in_proj_z": hidden * inner,
            "in_proj_ba": hidden * 2 * int(text["linear_num_value_heads"]),
            "out_proj": hidden * inner,
        }

    def _inner(self) -> int:
        text = self.text
        if self._is_mamba:
            return int(text["mamba_num_heads"]) * int(text["mamba_head_dim"])
        return int(text["linear_num_value_heads"]) * int(text["linear_value_head_dim"])

    def _recurrent(self, weights: Callable[[str], Weights]) -> RecurrentLayers | None:
        text, layers = self.text, self.kinds.mixers.count("state")
        if layers == 0:
            return None
        keys = text["ssm_state_size"] if self._is_mamba else text["linear_key_head_dim"]
        stored = text.get("mamba_ssm_cache_dtype") or text.get("mamba_ssm_dtype") or "float32"
        if str(stored) not in _STATE_BYTES:
            raise UsageError(f"the state's format is not understood: {stored!r}")
        return RecurrentLayers(
            layers=layers,
            parameters=sum(self._sizes["recurrent"].values()),
            state_bytes=self._inner() * int(keys) * _STATE_BYTES[str(stored)],
            weights=weights("recurrent"),
        )


def max_position(text: Mapping[str, Any]) -> int:
    """Return the longest context as vLLM derives it: YaRN and its like stretch the trained one."""
    longest = int(text["max_position_embeddings"])
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(scaling, Mapping) or "gemma3" in str(text.get("model_type")):
        return longest
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind not in ("yarn", "linear", "dynamic"):
        return longest
    if kind == "yarn":
        longest = int(scaling.get("original_max_position_embeddings") or longest)
    return int(longest * float(scaling.get("factor") or 1.0))


def _mean(formats: list[tuple[int, Weights]]) -> Weights:
    """Return the mean bytes of a parameter, and 8-bit products if most are in 8 bits."""
    total = sum(count for count, _ in formats)
    if total == 0 or all(weights == formats[0][1] for _, weights in formats):
        return formats[0][1]
    stored = sum(count * weights.bytes for count, weights in formats)
    eight = sum(count for count, weights in formats if weights.fp8)
    return Weights(stored / total, fp8=2 * eight > total)


def _architecture(name: str, config: Mapping[str, Any]) -> str:
    found = config.get("architectures")
    if not isinstance(found, list) or not found:
        raise UsageError(f"model '{name}': its config.json has no field 'architectures'")
    first = str(found[0])
    if first not in ARCHITECTURES:
        raise UsageError(
            f"model '{name}': the architecture '{first[:80]}' is not emulated; if its layers are "
            f"those of one that is ({', '.join(sorted(ARCHITECTURES))}), name that one in a copy "
            "of its config.json"
        )
    return first
