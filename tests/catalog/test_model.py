import json
from pathlib import Path

import pytest

from tuner.catalog.model import load_model, model_names, shape_of
from tuner.errors import UsageError

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}


def save(folder: Path, config: object) -> str:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("meta-llama/Llama-3.2-1B-Instruct", 1.24),
        ("Qwen/Qwen3-8B", 8.19),
        ("Qwen/Qwen3-32B", 32.8),
        ("Qwen/Qwen3-30B-A3B", 30.5),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", 141.0),
        ("google/gemma-2-9b-it", 9.24),
        ("google/gemma-3-27b-it", 27.0),
        ("meta-llama/Llama-3.1-405B-Instruct", 405.9),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 107.8),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400.7),
        ("Qwen/Qwen3-235B-A22B", 235.1),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 480.2),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 79.7),
        ("Qwen/Qwen3.6-27B", 26.9),
        ("openai/gpt-oss-20b", 20.9),
        ("openai/gpt-oss-120b", 116.8),
        ("deepseek-ai/DeepSeek-V3", 671.0),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", 15.7),
        ("moonshotai/Kimi-K2-Instruct", 1026.0),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", 8.89),
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2", 12.31),
        ("microsoft/phi-4", 14.7),
    ],
)
def test_published_sizes(name: str, billions: float) -> None:
    assert load_model(name).parameters / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(
    ("name", "gigabytes"),  # of the published checkpoints
    [
        ("openai/gpt-oss-120b", 65.2),
        ("openai/gpt-oss-20b", 13.8),
        ("deepseek-ai/DeepSeek-V3.1", 673),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", 236),
        ("meta-llama/Llama-3.1-405B-Instruct-FP8", 482),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", 415),
    ],
)
def test_quantized_sizes(name: str, gigabytes: float) -> None:
    assert load_model(name).loaded_bytes / 1e9 == pytest.approx(gigabytes, rel=0.03)


def test_which_experts_are_read_without_a_token() -> None:
    for name, reads_all in (
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", True),
        ("deepseek-ai/DeepSeek-V3.1", False),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", False),
        ("Qwen/Qwen3-30B-A3B", False),
    ):
        moe = load_model(name).moe
        assert moe is not None
        assert moe.reads_all == reads_all


def test_layers_by_what_mixes_their_tokens() -> None:
    gpt, gemma = load_model("openai/gpt-oss-120b"), load_model("google/gemma-3-27b-it")
    assert (gpt.attention.layers, gpt.attention.window_layers) == (36, 18)
    assert (gemma.attention.layers, gemma.attention.window_layers) == (62, 52)
    nemotron, hybrid = (
        load_model(name) for name in ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "Qwen/Qwen3.6-27B")
    )
    assert nemotron.recurrent is not None
    assert nemotron.mlp is not None
    counts = (nemotron.attention.layers, nemotron.recurrent.layers, nemotron.mlp.layers)
    assert counts == (4, 27, 25)
    assert hybrid.recurrent is not None
    assert (hybrid.attention.layers, hybrid.recurrent.layers) == (16, 48)


def test_dense_layers_among_mixtures() -> None:
    deepseek = load_model("deepseek-ai/DeepSeek-V3")
    maverick = load_model("meta-llama/Llama-4-Maverick-17B-128E-Instruct")
    for model, dense, mixed in ((deepseek, 3, 58), (maverick, 24, 24)):
        assert model.mlp is not None
        assert model.moe is not None
        assert (model.mlp.layers, model.moe.layers) == (dense, mixed)


def test_only_the_experts_of_mxfp4_checkpoints_are_in_four_bits() -> None:
    gpt = load_model("openai/gpt-oss-120b")
    assert gpt.moe is not None
    assert gpt.moe.weights.bytes == pytest.approx(4.25 / 8)
    assert gpt.attention.weights.bytes == 2.0


def test_what_a_quantization_leaves_out_stays_in_sixteen_bits() -> None:
    layers = [f"model.layers.{i}.self_attn" for i in range(2)]
    every = {"quant_method": "fp8", "modules_to_not_convert": layers}
    one = {"quant_method": "fp8", "ignore": ["model.layers.0.mlp.down_proj", "lm_head"]}
    assert shape_of("q", {**TINY, "quantization_config": every}).attention.weights.bytes == 2.0
    mlp = shape_of("q", {**TINY, "quantization_config": one}).mlp
    assert mlp is not None
    assert mlp.weights.fp8


@pytest.mark.parametrize(
    ("quantization", "size", "fp8"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, (4 + 20 / 128) / 8, False),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 1.0, False),
    ],
)
def test_formats(quantization: dict[str, object], size: float, fp8: bool) -> None:
    weights = shape_of("q", {**TINY, "quantization_config": quantization}).attention.weights
    assert (weights.bytes, weights.fp8) == (pytest.approx(size), fp8)


def test_every_shipped_model_loads() -> None:
    assert "Qwen/Qwen3-8B" in model_names()
    for name in model_names():
        assert load_model(name).kv_token_bytes(1, 2) > 0


def test_folder_with_config(tmp_path: Path) -> None:
    shape = load_model(save(tmp_path, TINY))
    assert (shape.layers, shape.heads, shape.kv_heads) == (2, 4, 4)
    assert shape.kv_token_bytes(1, 2) == 2 * 2 * 4 * 64 * 2


def test_more_gpus_than_kv_heads_copy_them() -> None:
    shape = load_model("Qwen/Qwen2.5-7B-Instruct")
    assert shape.kv_token_bytes(4, 2) == shape.kv_token_bytes(28, 2)


def test_nested_text_config() -> None:
    text = {key: value for key, value in TINY.items() if key != "architectures"}
    nested = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}
    assert shape_of("g", nested).hidden == 256


def test_eight_bit_weights_take_half() -> None:
    quantized = {**TINY, "quantization_config": {"quant_method": "fp8"}}
    half, full = shape_of("q", quantized), shape_of("f", TINY)
    embeddings = 2.0 * 2 * full.embedding_parameters
    assert 2 * (half.loaded_bytes - embeddings) == full.loaded_bytes - embeddings


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**TINY, "architectures": ["BertModel"]},
            r"'BertModel' is not emulated; .*LlamaForCausalLM.*, name that one in a copy",
        ),
        ({**TINY, "text_config": 3, "architectures": [7]}, "the architecture '7' is not emulated"),
        ({**TINY, "architectures": []}, "no field 'architectures'"),
        ({k: v for k, v in TINY.items() if k != "hidden_size"}, "no field 'hidden_size'"),
        ({**TINY, "hidden_size": "wide"}, "its config.json is wrong"),
        ({**TINY, "quantization_config": {"quant_method": "magic"}}, "unknown quant_method"),
        ([1], "must hold a JSON object"),
    ],
)
def test_bad_configs_are_one_sentence(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(save(tmp_path, config))


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config.json; put"):
        load_model(str(tmp_path))


def test_neither_folder_nor_known() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'Qwen/Qwen3-8B'.*config\.json"):
        load_model("Qwen/Qwen3-8b-x")
    with pytest.raises(UsageError, match=r"allowed: .* more\. It is no folder either"):
        load_model("nobody/nothing")


def test_not_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot read"):
        load_model(str(tmp_path))
