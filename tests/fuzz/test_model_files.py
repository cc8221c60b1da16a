"""Files of a model that say how it is stored: a shape with sound sizes, or a refusal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.hostile import cases, changed, damaged, one_sentence_at_most
from hypothesis import given

from tuner.catalog.model import load_model

CONFIGS = sorted((Path(__file__).parents[1] / "catalog" / "configs").glob("*.json"))
NAMES = [
    *("architectures", "model_type", "num_hidden_layers", "hidden_size", "head_dim", "torch_dtype"),
    *("intermediate_size",),
    *(
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "intermediate_size",
        "layer_types",
    ),
    *("num_experts", "n_routed_experts", "moe_intermediate_size", "sliding_window", "rope_scaling"),
    *("text_config", "quantization_config", "quant_method", "bits", "group_size", "config_groups"),
    *("targets", "weights", "num_bits", "type", "ignore", "kv_cache_scheme", "format", "producer"),
]
BLOCK: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "ignore": ["lm_head", "re:.*gate$"],
    "kv_cache_scheme": {"num_bits": 8, "type": "float"},
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "group_size": 128, "symmetric": False},
            "input_activations": None,
        }
    },
}
BESIDE: dict[str, Any] = {
    "producer": {"name": "modelopt", "version": "0.29.0"},
    "quantization": {
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": "FP8",
        "group_size": 16,
        "exclude_modules": ["lm_head"],
    },
}


def read(folder: Path) -> None:
    with one_sentence_at_most():
        shape = load_model(str(folder))
        sizes = (shape.loaded_bytes, shape.parameters, shape.expert_bytes, shape.state_bytes)
        assert all(math.isfinite(size) and size >= 0 for size in sizes), sizes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_config_of_any_values(folder: Path, path: Path) -> None:
    @cases(0.25)
    @given(changed(json.loads(path.read_text()), NAMES))
    def run(content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        read(folder)

    run()


def test_a_config_that_is_almost_right(folder: Path) -> None:
    @cases()
    @given(damaged([path.read_text() for path in CONFIGS]))
    def run(content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        read(folder)

    run()


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b"])
def test_weights_stored_in_any_way(folder: Path, name: str) -> None:
    config = json.loads(next(path for path in CONFIGS if path.stem == name).read_text())

    @cases()
    @given(changed({**config, "quantization_config": BLOCK}, NAMES))
    def run(content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        read(folder)

    run()


@cases()
@given(changed(BESIDE, NAMES))
def test_a_quantization_beside_the_config(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "beside"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(CONFIGS[-1].read_text())
    (folder / "hf_quant_config.json").write_bytes(content)
    read(folder)
