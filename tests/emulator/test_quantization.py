"""Quantization on the emulator: bytes and speed of a format, and what it does not fit."""

import pytest

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.emulator.engine.step import Batch, StepModel
from tuner.emulator.launch_rules import resolve
from tuner.emulator.quantization import FORMATS, in_format
from tuner.emulator.refusal import LaunchRefusedError
from tuner.errors import UsageError

LLAMA, H200 = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_gpu("H200-SXM")


@pytest.mark.parametrize("name", FORMATS)
def test_layers_shrink_and_embeddings_do_not(name: str) -> None:
    embeddings = 2 * LLAMA.embedding_parameters * 2.0
    layers = LLAMA.loaded_bytes - embeddings
    found = in_format(LLAMA, name).loaded_bytes - embeddings
    assert found / layers == pytest.approx(FORMATS[name].bytes / 2.0)
    assert (
        resolve(LLAMA, H200, {"quantization": name}).kv_blocks > resolve(LLAMA, H200, {}).kv_blocks
    )


def test_fp8_reads_half_and_multiplies_faster() -> None:
    one = Batch(decode_sequences=1, sampled_sequences=1, scheduled_sequences=1)
    many = Batch(prefill_tokens=8192, prefill_pairs=1.0, scheduled_sequences=1)
    plain, fp8 = (StepModel(in_format(LLAMA, how), H200) for how in (None, "fp8"))
    assert fp8.parts(one).linear_memory_s < 0.6 * plain.parts(one).linear_memory_s
    assert fp8.parts(many).linear_compute_s < 0.7 * plain.parts(many).linear_compute_s


def test_a_quantized_checkpoint_takes_no_other_format() -> None:
    quantized = in_format(LLAMA, "fp8")
    assert in_format(quantized, "fp8") == quantized
    with pytest.raises(LaunchRefusedError, match="does not match"):
        in_format(quantized, "awq")
    with pytest.raises(UsageError, match="allowed: fp8, awq"):
        resolve(LLAMA, H200, {"quantization": "int2"})
