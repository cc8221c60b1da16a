"""Flags as vLLM takes them: structured, with units, and auto."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.spec.search_space import load_space
from tuner.spec.settings import parse_settings


@pytest.mark.parametrize(
    ("written", "flags"),
    [
        ("compilation_config: {cudagraph_mode: FULL, mode: 3}",
         {"compilation_config.cudagraph_mode": "FULL", "compilation_config.mode": 3}),
        ("compilation_config: '{\"mode\": 3}'", {"compilation_config": '{"mode": 3}'}),
        ("max_model_len: 16k", {"max_model_len": 16_000}),
        ("max_model_len: auto", {"max_model_len": -1}),
        ("max_num_batched_tokens: 8K", {"max_num_batched_tokens": 8192}),
    ],
)  # fmt: skip
def test_fixed_flags_are_read_as_vllm_reads_them(
    tmp_path: Path, written: str, flags: dict[str, object]
) -> None:
    path = tmp_path / "mine.yaml"
    knob = "flags: {max_num_seqs: {type: power_of_two, low: 8, high: 64}}"
    path.write_text(f"name: mine\n{knob}\nfixed:\n  flags:\n    {written}\n")
    assert dict(load_space(str(path)).fixed.flags) == flags


def test_a_setting_is_read_as_vllm_reads_it() -> None:
    found = parse_settings(["max_model_len=16k", "max_num_batched_tokens=8K"])
    assert dict(found.flags) == {"max_model_len": 16_000, "max_num_batched_tokens": 8192}
    assert dict(parse_settings(["max_model_len=auto"]).flags) == {"max_model_len": -1}
