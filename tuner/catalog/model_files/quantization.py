"""Quantization: how a released model stores its weights and its cache, as its files say.

The block is `quantization_config` of config.json or of its `text_config`, or the
`hf_quant_config.json` of NVIDIA's ModelOpt beside it. A field that is not known here is refused: it
may say how weights are stored. Fields and their meaning follow vLLM's readers
(`vllm/model_executor/layers/quantization`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.catalog.model_files.module_names import Module, ModuleNames
from tuner.catalog.model_shape import Weights
from tuner.errors import UsageError, unknown_name

_FP8 = Weights(1.0, fp8=True)
_SCALE_BITS = 16
_METHODS = ("fp8", "fbgemm_fp8", "mxfp4", "awq", "gptq", "compressed-tensors", "modelopt")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# of each method: what is read below, and what says nothing about the size of the weights
_KNOWN: Mapping[str, frozenset[str]] = {
    method: _words(fields)
    for method, fields in {
        "fp8": """activation_scheme fmt scale_fmt weight_block_size modules_to_not_convert
            ignored_layers ignore kv_cache_scheme activation_scale_ub""",
        "mxfp4": "modules_to_not_convert",
        "awq": """bits w_bit group_size q_group_size zero_point version backend do_fuse
            modules_to_not_convert fuse_max_seq_len modules_to_fuse exllama_config""",
        "gptq": """bits group_size sym desc_act static_groups true_sequential damp_percent
            damp_auto_increment checkpoint_format is_marlin_format model_name_or_path
            model_file_base_name pack_dtype meta lm_head dynamic batch_size backend dataset
            block_name_to_quantize cache_block_outputs exllama_config max_input_length
            module_name_preceding_first_block pad_token_id tokenizer use_cuda_fp16 use_exllama
            disable_exllama""",
        "compressed-tensors": """config_groups format ignore kv_cache_scheme quantization_status
            global_compression_ratio sparsity_config transform_config version""",
        "modelopt": """quant_algo kv_cache_quant_algo kv_cache_scheme group_size exclude_modules
            ignore config_groups quantized_layers producer has_zero_point pre_quant_scale
            packed_modules_mapping""",
    }.items()
}
_GROUP_FIELDS = _words("targets weights input_activations output_activations format")
_TENSOR_FIELDS = _words(
    """num_bits type group_size symmetric strategy block_structure dynamic actorder observer
    observer_kwargs scale_dtype zp_dtype"""
)
_LAYER_FIELDS = _words("quant_algo group_size has_zero_point pre_quant_scale")
_EMPTY_UNLESS_REFUSED = ("sparsity_config", "transform_config", "dynamic", "lm_head")

# a field of config.json outside of the block whose name says that it is about storage
_ABOUT_STORAGE = re.compile(
    r"quant|compress|sparsi|dtype|precision|(^|_)n?bits?($|_)|pack|int[248]|fp[468]|float[48]"
    r"|weight_(format|block|scheme|storage)|scale_fmt"
)
_READ_ELSEWHERE = _words(
    """quantization_config torch_dtype dtype mamba_ssm_dtype mamba_ssm_cache_dtype moe_router_dtype
    residual_in_fp32"""
)
_SIXTEEN_BITS = ("bfloat16", "float16", "float32", "auto", "half")  # vLLM casts float32


@dataclass(frozen=True, slots=True)
class Quantization:
    """Which modules are stored how; everything else is in 16 bits."""

    groups: tuple[tuple[ModuleNames | None, Weights], ...]  # None names every module
    excluded: ModuleNames
    kv_bytes: int = 2
    only_experts: bool = False
    block_experts: bool = False  # 8-bit weights in blocks
    keeps_head: bool = True  # the output matrix stays in 16 bits, named or not

    @property
    def names(self) -> list[str]:
        """Every name in its lists."""
        targets = [name for names, _ in self.groups if names is not None for name in names.names]
        return [*targets, *self.excluded.names]

    def of(self, module: Module) -> Weights:
        """Return the format of a module."""
        if self.only_experts and module.part != "experts":
            return Weights()
        if (self.keeps_head and module.part == "head") or self.excluded.matches(module):
            return Weights()
        for names, weights in self.groups:
            if names is None or names.matches(module):
                return weights
        return Weights()

    def check(self, modules: Iterable[Module]) -> None:
        """Raise `UsageError` for a target that is neither a known class nor a known module."""
        listed = list(modules)
        for names, _ in self.groups:
            word = None if names is None else names.unknown(listed)
            if word is not None:
                raise UsageError(f"'targets' names '{word}', which is not understood")


UNQUANTIZED = Quantization((), ModuleNames(()))


def quantization_of(config: Mapping[str, Any], sidecar: Mapping[str, Any] | None) -> Quantization:
    """Read a model's quantization; `sidecar` is its hf_quant_config.json.

    Raises `UsageError`, without the model's name, for whatever is not understood.
    """
    check_storage_fields(config)
    found = [
        block["quantization_config"]
        for block in (config, config.get("text_config"))
        if isinstance(block, dict) and block.get("quantization_config") is not None
    ]
    if len(found) > 1 and found[0] != found[1]:
        raise UsageError("'quantization_config' and that of 'text_config' differ; leave one")
    if found:
        return _read(_mapping(found[0], "quantization_config"))
    if sidecar is not None:
        unknown = set(sidecar) - {"producer", "quantization", "quant_method"}
        if unknown or "quantization" not in sidecar:
            what = _fields(unknown) or "a file without the field 'quantization'"
            raise UsageError(f"hf_quant_config.json: {what} is not understood")
        block = _mapping(sidecar["quantization"], "quantization of hf_quant_config.json")
        return _modelopt(_checked(block, "modelopt", ("quant_method",)))
    return UNQUANTIZED


def check_storage_fields(config: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a field outside of the block that says how weights are stored."""
    for where, block in (("", config), ("text_config.", config.get("text_config"))):
        if not isinstance(block, Mapping):
            continue
        for name, value in block.items():
            if isinstance(value, Mapping) and name != "text_config":
                _refuse_nested(where + name, value)
            if name in ("torch_dtype", "dtype"):
                if value is not None and str(value).removeprefix("torch.") not in _SIXTEEN_BITS:
                    raise UsageError(
                        f"'{where}{name}' is {value!r}: weights of it are not emulated"
                    )
            elif name not in _READ_ELSEWHERE and value and _ABOUT_STORAGE.search(name):
                raise UsageError(
                    f"the field '{where}{name}' may say how weights are stored and is unknown"
                )


def _refuse_nested(where: str, block: Mapping[str, Any]) -> None:
    """Refuse a quantization in a part of the model that nobody reads, but for vision and audio."""
    if block.get("quantization_config") and not re.search(r"vision|audio", where):
        raise UsageError(f"'{where}.quantization_config' stands where it is not understood")


def _read(block: Mapping[str, Any]) -> Quantization:
    method = block.get("quant_method")
    if method is None and "quant_algo" in block:
        method = "modelopt"
    if method in ("modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed"):
        method = "modelopt"
    if method not in _METHODS:
        raise UsageError(unknown_name("quant_method", str(method), _METHODS))
    known = "fp8" if method == "fbgemm_fp8" else str(method)
    _checked(block, known, ("quant_method",))
    if method == "modelopt":
        return _modelopt(block)
    if method == "compressed-tensors":
        return _compressed(block)
    if known == "fp8":
        if block.get("fmt") not in (None, "e4m3", "float8_e4m3fn"):
            raise UsageError(f"'fmt' is {block['fmt']!r}, which is not understood")
        in_blocks = method == "fp8" and block.get("weight_block_size") is not None
        return _uniform(block, _FP8, kv_bytes=_kv_bytes(block), block_experts=in_blocks)
    if method == "mxfp4":  # released checkpoints quantize only the experts
        return _uniform(block, Weights(4.25 / 8), only_experts=True)
    bits = int(block.get("bits") or block.get("w_bit") or 4)
    group = block.get("group_size", block.get("q_group_size"))
    has_zero_point = method == "gptq" or bool(block.get("zero_point", True))
    return _uniform(block, _integers(bits, group, has_zero_point))


def _uniform(
    block: Mapping[str, Any],
    weights: Weights,
    *,
    kv_bytes: int = 2,
    only_experts: bool = False,
    block_experts: bool = False,
) -> Quantization:
    return Quantization(((None, weights),), _excluded(block), kv_bytes, only_experts, block_experts)


def _compressed(block: Mapping[str, Any]) -> Quantization:
    groups = _mapping(block.get("config_groups"), "config_groups")
    if not groups:
        raise UsageError("'config_groups' is empty")
    read = tuple(_group(name, group, block.get("format")) for name, group in groups.items())
    return Quantization(read, _excluded(block), _kv_bytes(block), keeps_head=False)


def _group(name: str, group: Any, outer_format: Any) -> tuple[ModuleNames, Weights]:
    fields = _mapping(group, name)
    _refuse_unknown(fields, _GROUP_FIELDS, name)
    targets = fields.get("targets")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise UsageError(f"'targets' of '{name}' must be a list of names")
    weights = _mapping(fields.get("weights"), f"weights of {name}")
    activations = fields.get("input_activations")
    for tensor in (weights, activations, fields.get("output_activations")):
        if tensor is not None:
            _refuse_unknown(_mapping(tensor, name), _TENSOR_FIELDS, name)
    layout = str(fields.get("format") or outer_format or "")
    return ModuleNames(targets), _tensor(name, weights, layout, activations is not None)


def _tensor(name: str, weights: Mapping[str, Any], layout: str, is_activated: bool) -> Weights:
    """Return the size of a matrix that compressed-tensors or ModelOpt describes."""
    bits, kind, group = weights.get("num_bits"), weights.get("type", "int"), _group_size(weights)
    if kind == "float" and bits == 8:
        return Weights((8 + (8 / group if group == 32 else 0.0)) / 8, fp8=is_activated)
    if kind == "float" and bits == 4 and group:
        return Weights((4 + 8 / group) / 8)
    if kind == "int" and isinstance(bits, int) and 1 <= bits <= 8:
        scale_bits = 8 if "uint8" in str(weights.get("scale_dtype")) or "fp4" in layout else 16
        zero_bits = 0 if weights.get("symmetric", True) else bits
        return Weights((bits + ((scale_bits + zero_bits) / group if group else 0.0)) / 8)
    raise UsageError(f"'{name}' has weights of {bits!r} bits of type {kind!r}: not understood")


def _group_size(weights: Mapping[str, Any]) -> int:
    size = weights.get("group_size")
    return int(size) if isinstance(size, (int, float)) and size > 0 else 0


def _modelopt(block: Mapping[str, Any]) -> Quantization:
    algorithm = block.get("quant_algo")
    if layers := block.get("quantized_layers"):
        groups = []
        for name, layer in _mapping(layers, "quantized_layers").items():
            fields = _mapping(layer, name)
            _refuse_unknown(fields, _LAYER_FIELDS, name)
            groups.append((name, _algorithm(fields.get("quant_algo"), fields)))
        named = {weights: [n for n, w in groups if w == weights] for _, weights in groups}
        read = tuple((ModuleNames(names), weights) for weights, names in named.items())
    elif algorithm == "MIXED_PRECISION" or (algorithm is None and block.get("config_groups")):
        mixed = _mapping(block.get("config_groups"), "config_groups")
        read = tuple(_group(name, group, None) for name, group in mixed.items())
    elif algorithm in (None, "NO_QUANT", "None"):
        read = ()
    else:
        return Quantization(
            ((None, _algorithm(algorithm, block)),),
            _excluded(block),
            _kv_bytes(block),
            keeps_head=False,
        )
    return Quantization(read, _excluded(block), _kv_bytes(block), keeps_head=False)


def _algorithm(name: Any, block: Mapping[str, Any]) -> Weights:
    """Return the size of a matrix by ModelOpt's name of its format."""
    group = _group_size(block)
    fixed = {
        "FP8": _FP8,
        "FP8_PER_CHANNEL_PER_TOKEN": _FP8,
        "FP8_PB_WO": _FP8,
        "MXFP8": Weights(8.25 / 8, fp8=True),
        "NVFP4": Weights((4 + 8 / (group or 16)) / 8),
        "W4A16_NVFP4": Weights((4 + 8 / (group or 16)) / 8),
        "W4A8_NVFP4_FP8": Weights((4 + 8 / (group or 16)) / 8),
        "MXFP4": Weights(4.25 / 8),
        "W4A8_MXFP4_FP8": Weights(4.25 / 8),
        "INT8": Weights(1.0),
        "W8A16": Weights(1.0),
        "W8A8_SQ_PER_CHANNEL": Weights(1.0),
    }
    if name in ("W4A16", "W4A16_AWQ", "W4A8_AWQ", "INT4_AWQ"):
        return _integers(4, group or 128, bool(block.get("has_zero_point")))
    if name not in fixed:
        raise UsageError(unknown_name("quant_algo", str(name), fixed))
    return fixed[name]


def _integers(bits: int, group_size: object, has_zero_point: bool) -> Weights:
    group = int(group_size) if isinstance(group_size, (int, float)) and group_size > 0 else 0
    each = _SCALE_BITS + (bits if has_zero_point else 0)
    return Weights((bits + (each / group if group else 0.0)) / 8)


def _kv_bytes(block: Mapping[str, Any]) -> int:
    """Return the bytes of a cached element: vLLM takes an 8-bit cache where a model asks for it."""
    algorithm, scheme = block.get("kv_cache_quant_algo"), block.get("kv_cache_scheme")
    if algorithm in (None, "", "None", "NO_QUANT") and scheme in (None, {}):
        return 2
    if isinstance(scheme, Mapping):
        _refuse_unknown(scheme, _TENSOR_FIELDS, "kv_cache_scheme")
    eight = isinstance(scheme, Mapping) and scheme.get("num_bits") == 8
    if algorithm == "FP8" or scheme == "FP8" or eight:
        return 1
    raise UsageError(f"the cache's format is not understood: {algorithm or scheme!r}")


def _excluded(block: Mapping[str, Any]) -> ModuleNames:
    fields = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules")
    names: list[str] = []
    for field in fields:
        listed = block.get(field) or ()
        if not isinstance(listed, (list, tuple)) or not all(isinstance(n, str) for n in listed):
            raise UsageError(f"'{field}' must be a list of names")
        names += listed
    return ModuleNames(names)


def _checked(block: Mapping[str, Any], method: str, also: tuple[str, ...]) -> Mapping[str, Any]:
    _refuse_unknown(block, _KNOWN[method] | set(also), "quantization")
    for name in _EMPTY_UNLESS_REFUSED:
        value = block.get(name)
        if value and not (isinstance(value, Mapping) and value.get("format") == "dense"):
            raise UsageError(f"'{name}' of the quantization is {value!r}: not emulated")
    return block


def _refuse_unknown(fields: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    unknown = {name for name, value in fields.items() if name not in known}
    if unknown:
        raise UsageError(
            f"{_fields(unknown)} of '{where}' may say how weights are stored and is unknown"
        )


def _fields(names: Iterable[str]) -> str:
    listed = sorted(map(str, names))
    return "" if not listed else "the field " + ", ".join(f"'{name}'" for name in listed)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"'{name}' must be a JSON object")
    return value
