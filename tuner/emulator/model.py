"""The shape of a model: what its Hugging Face config.json says that costs time or memory.

Sliding-window layers are taken as full attention, so long contexts of such models cost too much.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tuner.errors import UsageError, unknown_name

DENSE_ARCHITECTURES = frozenset(
    {
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "Gemma3ForCausalLM",
        "Gemma3ForConditionalGeneration",
    }
)
MOE_ARCHITECTURES = frozenset({"MixtralForCausalLM", "Qwen3MoeForCausalLM"})
_EIGHT_BIT_WEIGHTS = frozenset({"fp8", "fbgemm_fp8"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder-only transformer with a gated MLP in each layer, dense or mixture of experts."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int  # of one expert in a mixture of experts
    vocabulary: int
    max_position: int
    tied_embeddings: bool
    experts: int = 1
    active_experts: int = 1
    weight_bytes: float = 2.0  # per parameter of the layers; embeddings are 16-bit

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's projections."""
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert (or the one MLP) of one layer."""
        return 3 * self.hidden * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        """Parameters of one vocabulary matrix."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All parameters."""
        layer = self.attention_parameters + self.experts * self.expert_parameters
        matrices = 1 if self.tied_embeddings else 2
        return self.layers * layer + matrices * self.embedding_parameters

    @property
    def loaded_bytes(self) -> float:
        """Memory of the weights on all GPUs together."""
        matrices = 1 if self.tied_embeddings else 2
        embeddings = matrices * self.embedding_parameters
        return (self.parameters - embeddings) * self.weight_bytes + 2.0 * embeddings

    def kv_token_bytes(self, shards: int, element_bytes: int) -> float:
        """Cache of one token on one of `shards` GPUs; heads are copied if there are fewer."""
        heads = max(self.kv_heads / shards, 1)
        return 2 * self.layers * heads * self.head_dim * element_bytes


def model_names() -> tuple[str, ...]:
    """Names of the models that need no download."""
    return tuple(sorted(_shipped()))


def load_model(name_or_path: str) -> ModelShape:
    """Return the shape of a shipped model, or of the config.json in a folder.

    Raises `UsageError` for what is neither, or for an architecture the emulator does not know.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return _from_folder(name_or_path, folder)
    shipped = _shipped()
    names = {name.lower(): name for name in shipped}
    if name_or_path.lower() not in names:
        raise UsageError(
            unknown_name("model", name_or_path, shipped)
            + " It is no folder either: give one that holds the model's config.json"
        )
    name = names[name_or_path.lower()]
    return shape_of(name, shipped[name])


def shape_of(name: str, config: Mapping[str, Any]) -> ModelShape:
    """Read a Hugging Face configuration; raises `UsageError` if it cannot be emulated."""
    architecture = _architecture(name, config)
    text = {**config, **config.get("text_config", {})}
    try:
        heads = int(text["num_attention_heads"])
        moe = architecture in MOE_ARCHITECTURES
        experts = int(text.get("num_local_experts") or text["num_experts"]) if moe else 1
        width = text.get("moe_intermediate_size") if moe else None
        return ModelShape(
            name=name,
            layers=int(text["num_hidden_layers"]),
            hidden=int(text["hidden_size"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or int(text["hidden_size"]) // heads),
            intermediate=int(width or text["intermediate_size"]),
            vocabulary=int(text["vocab_size"]),
            max_position=int(text["max_position_embeddings"]),
            tied_embeddings=bool(text.get("tie_word_embeddings", "Gemma" in architecture)),
            experts=experts,
            active_experts=int(text["num_experts_per_tok"]) if moe else 1,
            weight_bytes=_weight_bytes(name, config),
        )
    except KeyError as error:
        raise UsageError(f"model '{name}': its config.json has no field {error}") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"model '{name}': its config.json is wrong: {error}") from None


def _architecture(name: str, config: Mapping[str, Any]) -> str:
    known = DENSE_ARCHITECTURES | MOE_ARCHITECTURES
    found = config.get("architectures")
    if not isinstance(found, list) or not found:
        raise UsageError(f"model '{name}': its config.json has no field 'architectures'")
    if found[0] not in known:
        raise UsageError(f"model '{name}': " + unknown_name("architecture", str(found[0]), known))
    return str(found[0])


def _weight_bytes(name: str, config: Mapping[str, Any]) -> float:
    quantization = config.get("quantization_config")
    if quantization is None:
        return 2.0
    method = str(quantization.get("quant_method"))
    if method in _EIGHT_BIT_WEIGHTS:
        return 1.0
    if method in ("awq", "gptq"):
        return float(quantization.get("bits", 4)) / 8
    known = [*_EIGHT_BIT_WEIGHTS, "awq", "gptq"]
    raise UsageError(f"model '{name}': " + unknown_name("quant_method", method, known))


def _from_folder(name: str, folder: Path) -> ModelShape:
    path = folder / "config.json"
    if not path.is_file():
        raise UsageError(f"the folder '{name}' has no config.json; put the model's one there")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"cannot read '{path}': {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"'{path}' must hold a JSON object")
    return shape_of(name, config)


def _shipped() -> dict[str, dict[str, Any]]:
    path = Path(__file__).parent / "models" / "models.yaml"
    models: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return models
