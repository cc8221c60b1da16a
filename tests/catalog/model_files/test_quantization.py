"""Weights as a model's files say them: sizes of released layouts, and refusals."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.catalog.model import load_model, shape_of
from tuner.catalog.model_shape import ModelShape
from tuner.errors import UsageError

LAYERS, HIDDEN, WIDTH, VOCABULARY = 4, 1024, 4096, 32_000
TINY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": WIDTH,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
MOE: dict[str, Any] = {
    **TINY,
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
}
ATTENTION, MLP = LAYERS * 4 * HIDDEN * HIDDEN, LAYERS * 3 * HIDDEN * WIDTH
EMBEDDINGS = 2 * 2 * HIDDEN * VOCABULARY  # bytes
EXPERTS, ROUTERS = LAYERS * 8 * 3 * HIDDEN * 512, LAYERS * HIDDEN * 8


def tensors(bits: int, kind: str = "float", **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": kind, **more}


def packed(layout: str, **group: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], **group}},
    }


def quantized(block: Any, base: dict[str, Any] = TINY) -> ModelShape:
    return shape_of("q", {**base, "quantization_config": block})


EIGHT = tensors(8, strategy="channel", symmetric=True)
NVFP4 = packed(
    "nvfp4-pack-quantized",
    weights=tensors(4, group_size=16, strategy="tensor_group"),
    input_activations=tensors(4, group_size=16, dynamic="local"),
)


@pytest.mark.parametrize(
    ("block", "bits"),
    [
        (NVFP4, 4.5),
        (packed("mxfp4-pack-quantized", weights=tensors(4, group_size=32)), 4.25),
        (packed("pack-quantized", weights=tensors(4, "int", group_size=32, symmetric=True)), 4.5),
        (
            packed("pack-quantized", weights=tensors(4, "int", group_size=128, symmetric=False)),
            4 + 20 / 128,
        ),
        (packed("int-quantized", weights=tensors(8, "int", strategy="channel")), 8),
        ({"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}, 8),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}, 4.5),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, 4 + 20 / 128),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": False}, 4.25),
        ({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}, 8),
    ],
)
def test_bits_of_a_parameter(block: dict[str, Any], bits: float) -> None:
    expected = EMBEDDINGS + (ATTENTION + MLP) * bits / 8
    assert quantized(block).loaded_bytes == pytest.approx(expected)


def test_only_quantized_activations_are_multiplied_in_eight_bits() -> None:
    both = packed("float-quantized", weights=EIGHT, input_activations=EIGHT)
    assert quantized(both).attention.weights.fp8
    assert not quantized(packed("float-quantized", weights=EIGHT)).attention.weights.fp8


def test_each_group_has_its_own_format() -> None:
    block = packed("mixed-precision", weights=EIGHT, input_activations=EIGHT)
    block["config_groups"] = {
        "group_0": {"targets": ["re:.*self_attn.*"], "weights": EIGHT, "input_activations": EIGHT},
        "group_1": {
            "targets": [r"re:.*mlp\.experts\..*"],
            "weights": tensors(4, group_size=16),
            "format": "nvfp4-pack-quantized",
        },
    }
    shape = quantized(block, MOE)
    assert shape.loaded_bytes == pytest.approx(
        EMBEDDINGS + ATTENTION + EXPERTS * 4.5 / 8 + 2 * ROUTERS
    )
    assert shape.moe is not None
    assert (shape.attention.weights.fp8, shape.moe.weights.fp8) == (True, False)


@pytest.mark.parametrize(
    "excluded",
    [
        ["model.layers.0.post_attention_layernorm", "model.layers.1.input_layernorm"],
        ["model.visual.blocks.0.attn.qkv", "visual", "vision_tower*", "mtp.layers.0.self_attn"],
        ["model.norm", "model.embed_tokens", "e_score_correction_bias"],
    ],
)
def test_names_of_other_things_leave_nothing_out(excluded: list[str]) -> None:
    plain = quantized({"quant_method": "fp8"}, MOE)
    listed = quantized({"quant_method": "fp8", "modules_to_not_convert": excluded}, MOE)
    assert listed.loaded_bytes == plain.loaded_bytes


@pytest.mark.parametrize(
    ("excluded", "parameters"),
    [
        (["self_attn"], ATTENTION),
        (["model.layers.*.self_attn*"], ATTENTION),
        (["model.language_model.layers.0.self_attn"], ATTENTION / LAYERS),
        (["re:.*self_attn.q_proj"], ATTENTION / 4),
        (["model.layers.3.self_attn.qkv_proj"], 3 / 4 * ATTENTION / LAYERS),
        (["model.layers.0.mlp.experts"], EXPERTS / LAYERS),
        (["model.layers.0.mlp.experts.3"], EXPERTS / LAYERS / 8),
        (["mlp.gate"], ROUTERS),
        (["gate"], ROUTERS),
    ],
)
def test_what_is_left_out_stays_in_sixteen_bits(excluded: list[str], parameters: float) -> None:
    plain = quantized({"quant_method": "fp8"}, MOE)
    listed = quantized({"quant_method": "fp8", "ignored_layers": excluded}, MOE)
    assert listed.loaded_bytes - plain.loaded_bytes == pytest.approx(parameters)


def test_layers_with_formats_of_their_own() -> None:
    named = {f"model.layers.{i}.mlp.experts": {"quant_algo": "NVFP4"} for i in range(LAYERS)}
    named["lm_head"] = {"quant_algo": "W4A16_NVFP4", "group_size": 16}
    block = {"quant_algo": "MIXED_PRECISION", "quantized_layers": named}
    expected = EMBEDDINGS * (1 + 4.5 / 16) / 2 + 2 * ATTENTION + EXPERTS * 4.5 / 8 + 2 * ROUTERS
    assert quantized(block, MOE).loaded_bytes == pytest.approx(expected)


def test_the_file_beside_counts_where_the_config_says_nothing(tmp_path: Path) -> None:
    beside = {"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    assert load_model(str(tmp_path)).loaded_bytes == EMBEDDINGS + ATTENTION + MLP
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"other": 1}))
    with pytest.raises(UsageError, match=r"hf_quant_config\.json: the field 'other'"):
        load_model(str(tmp_path))


def test_a_block_inside_of_the_text_part() -> None:
    inside = {**TINY, "text_config": {"quantization_config": NVFP4}}
    assert shape_of("q", inside).loaded_bytes == quantized(NVFP4).loaded_bytes
    with pytest.raises(UsageError, match="differ"):
        shape_of("q", {**inside, "quantization_config": {"quant_method": "fp8"}})
    with pytest.raises(UsageError, match=r"'llm_config\.quantization_config' stands where"):
        shape_of("q", {**TINY, "llm_config": {"quantization_config": NVFP4}})


@pytest.mark.parametrize(
    ("cache", "size"),
    [
        ({}, 2),
        ({"kv_cache_scheme": None}, 2),
        ({"kv_cache_scheme": tensors(8)}, 1),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, 1),
    ],
)
def test_an_eight_bit_cache(cache: dict[str, Any], size: int) -> None:
    assert quantized({"quant_method": "fp8", **cache}).kv_bytes == size


HYBRID: dict[str, Any] = {
    **TINY,
    "architectures": ["NemotronHForCausalLM"],
    "hybrid_override_pattern": "ME*E-M",
    "mamba_num_heads": 8,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "n_routed_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 1024,
    "moe_latent_size": None,
}


def test_hybrid_layers_with_experts() -> None:
    shape = shape_of("h", HYBRID)
    assert shape.moe is not None
    assert shape.recurrent is not None
    assert shape.mlp is not None
    counts = (shape.recurrent.layers, shape.attention.layers, shape.moe.layers, shape.mlp.layers)
    assert counts == (2, 1, 2, 1)
    assert shape.moe.parameters == 2 * HIDDEN * 512
    assert shape.moe.shared_parameters == 2 * HIDDEN * 1024 + HIDDEN * 16
    blocks = ["mamba", "moe", "attention", "moe", "mlp", "mamba"]
    listed = {k: v for k, v in HYBRID.items() if k not in ("hybrid_override_pattern",)}
    listed.pop("num_hidden_layers")
    assert shape_of("h", {**listed, "layers_block_type": blocks}) == shape


def test_experts_in_a_narrower_space() -> None:
    latent = shape_of("h", {**HYBRID, "moe_latent_size": 256}).moe
    assert latent is not None
    assert latent.parameters == 2 * 256 * 512
    assert latent.shared_parameters == 2 * HIDDEN * (1024 + 256) + HIDDEN * 16


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}, 8192),
        ({"type": "yarn", "factor": 4, "original_max_position_embeddings": 1024}, 4096),
        ({"rope_type": "linear", "factor": 2.0}, 4096),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512}, 2048),
        (None, 2048),
    ],
)
def test_longest_context(scaling: object, longest: int) -> None:
    assert shape_of("y", {**TINY, "rope_scaling": scaling}).max_position == longest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "unknown quant_method"),
        ({"quantization_config": {"quant_method": "gptq", "dynamic": {"-:x": {}}}}, "'dynamic'"),
        ({"quantization_config": {"quant_algo": "FP3"}}, "unknown quant_algo 'FP3'"),
        ({"quantization_config": [1]}, "must be a JSON object"),
        ({"quantization_config": {**NVFP4, "ignore": "lm_head"}}, "'ignore' must be a list"),
        (
            {"quantization_config": packed("x", targets=["Conv2d"], weights=EIGHT)},
            "'targets' names 'Conv2d'",
        ),
        ({"quantization_config": packed("x", targets=["re:("], weights=EIGHT)}, "no regular expr"),
        ({"quantization_config": packed("x", weights=tensors(3, "float"))}, "3 bits"),
        (
            {"quantization_config": {"quant_method": "fp8", "kv_cache_scheme": tensors(4)}},
            "the cache's format",
        ),
        ({"expert_dtype": "fp4"}, "the field 'expert_dtype'"),
        ({"compression_config": {"format": "pack"}}, "the field 'compression_config'"),
        ({"dtype": "float8_e4m3fn"}, "'dtype' is 'float8_e4m3fn'"),
        ({"layer_types": ["full_attention", "magic"] * 2}, "unknown kind in 'layer_types'"),
        ({"layer_types": ["full_attention"]}, "1 entries for 4 layers"),
        ({"num_hidden_layers": 0}, "'num_hidden_layers' is 0"),
        ({"num_hidden_layers": 10**9}, "a model has 1 to 10,000"),
        ({"vocab_size": -32_000}, "a count is negative"),
        ({"hidden_size": 10**12}, "its weights would take"),
        ({"intermediate_size": 10**400}, "its config.json is wrong"),
        ({"architectures": [["LlamaForCausalLM"]]}, "is not emulated"),
    ],
)
def test_refusals_name_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        shape_of("q", {**TINY, **change})


@pytest.mark.parametrize("letter", ["X", "m", "?"])
def test_an_unknown_layer_is_refused(letter: str) -> None:
    with pytest.raises(UsageError, match="unknown letter in 'hybrid_override_pattern'"):
        shape_of("h", {**HYBRID, "hybrid_override_pattern": "M*" + letter})


BLOCKS: list[dict[str, Any]] = [
    NVFP4,
    {"quant_method": "fp8", "weight_block_size": [128, 128], "kv_cache_scheme": tensors(8)},
    {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": []},
    {"quant_method": "gptq", "bits": 4, "group_size": 128},
    {"quant_method": "awq", "bits": 4, "group_size": 128},
    {"quant_method": "mxfp4"},
    {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"lm_head": {"quant_algo": "FP8"}}},
]
PLACES = st.sampled_from([(block, place) for block in BLOCKS for place in range(8)])


def objects(block: Any) -> list[dict[str, Any]]:
    """Every object of a block that describes weights or caches."""
    if not isinstance(block, dict):
        return []
    named = ("config_groups", "quantized_layers")
    inner = [found for value in block.values() for found in objects(value)]
    own = [] if any(block is b for b in inner) else [block]
    groups = [value for name in named for value in (block.get(name) or {}).values()]
    return [*own, *groups, *inner]


@given(PLACES, st.from_regex(r"[a-z]{3,12}_[a-z]{3,12}", fullmatch=True), st.integers(1, 9))
def test_an_unknown_key_of_a_quantization_is_never_passed_over(
    chosen: tuple[dict[str, Any], int], name: str, value: int
) -> None:
    block = deepcopy(chosen[0])
    held = [o for o in objects(block) if not any(isinstance(v, dict) for v in o.values())]
    held = [block, *held]
    place = held[chosen[1] % len(held)]
    place[f"{name}_unheard_of"] = value
    with pytest.raises(UsageError, match=f"'{name}_unheard_of'"):
        quantized(block, MOE)


@given(
    st.sampled_from(["quant", "compress", "sparsity", "dtype", "precision", "fp8", "int4", "pack"]),
    st.from_regex(r"[a-z]{3,9}", fullmatch=True),
    st.booleans(),
)
def test_a_key_about_storage_outside_of_the_block_is_never_passed_over(
    word: str, stem: str, nested: bool
) -> None:
    name = f"{stem}_{word}_x"
    change = {"text_config": {name: 4}} if nested else {name: 4}
    with pytest.raises(UsageError, match=name):
        shape_of("q", {**TINY, **change})
