"""Write a Llama's weights of ordinary size: norms of one, matrices drawn from N(0, 0.02).

    python ordinary_weights.py CONFIG_FOLDER TARGET

vLLM's `--load-format dummy` draws from U(-0.001, 0.001) instead, and power depends on the data.
Does nothing if TARGET is complete. Needs torch and a GPU, or patience.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

_STD = 0.02


def main(source: Path, target: Path) -> None:
    """Write one file for each layer, an index, and then the config, without which nothing loads."""
    if (target / "config.json").exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    files = {"model-rest.safetensors": _rest(config)}
    for layer in range(config["num_hidden_layers"]):
        files[f"model-{layer:03}.safetensors"] = _layer(config, f"model.layers.{layer}.")
    torch.manual_seed(0)
    index = {}
    for name, shapes in files.items():
        save_file({key: _tensor(shape) for key, shape in shapes.items()}, target / name)
        index.update(dict.fromkeys(shapes, name))
    (target / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    shutil.copy(source / "config.json", target / "config.json")


def _rest(config: dict[str, int]) -> dict[str, tuple[int, ...]]:
    vocabulary, hidden = config["vocab_size"], config["hidden_size"]
    return {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }


def _layer(config: dict[str, int], prefix: str) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    return {prefix + name: shape for name, shape in shapes.items()}


def _tensor(shape: tuple[int, ...]) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (torch.randn(shape, device=device) * _STD).to(torch.bfloat16).cpu()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
