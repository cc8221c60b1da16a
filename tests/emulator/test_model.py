import json
from pathlib import Path

import pytest

from tuner.emulator.model import load_model, model_names, shape_of
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
        ("google/gemma-3-27b-it", 27.0),
    ],
)
def test_published_sizes(name: str, billions: float) -> None:
    assert load_model(name).parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_every_shipped_model_loads() -> None:
    assert "Qwen/Qwen3-8B" in model_names()
    for name in model_names():
        assert load_model(name).kv_token_bytes(1, 2) > 0


def test_folder_with_config(tmp_path: Path) -> None:
    shape = load_model(save(tmp_path, TINY))
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim) == (2, 4, 4, 64)
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
        ({**TINY, "architectures": ["LLamaForCausalLM"]}, "did you mean .*'LlamaForCausalLM'"),
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


def test_not_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot read"):
        load_model(str(tmp_path))
