"""Drafts and precision on a real vLLM with a real model, whose answers end by themselves.

`.ci/small-model.sh` makes the model; TUNER_SMALL_MODEL is its folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers.tiny_vllm import needs_vllm

import tuner

pytestmark = [
    *needs_vllm(2400),
    pytest.mark.skipif(
        "TUNER_SMALL_MODEL" not in os.environ, reason="TUNER_SMALL_MODEL names no folder"
    ),
]

ASKED = {
    "What is the capital of France?": "Paris",
    "What is the capital of Japan?": "Tokyo",
    "What is the capital of Italy?": "Rome",
    "What is the opposite of hot?": "cold",
    "What do bees make?": "honey",
    "What is the first month of the year?": "January",
}
# The broken one has few layers of random weights: it says nonsense, and saves most of the energy.
SPACE = """
name: answers
fixed:
  flags: {enforce_eager: true, max_model_len: 512}
  environment: {VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1}
flags:
  dtype: {type: choice, choices: [unset, float32]}
  speculative_config:
    type: variants
    variants:
      none: {}
      ngram: {method: ngram, prompt_lookup_max: 4, num_speculative_tokens: 3}
  load_format: {type: choice, choices: [unset, dummy]}
  hf_overrides:
    type: variants
    variants:
      none: {}
      few: {num_hidden_layers: 4}
relations:
  - load_format == unset or hf_overrides == 'few'
  - hf_overrides == 'none' or load_format == 'dummy'
  - dtype == unset or speculative_config == 'none' and hf_overrides == 'none'
  - speculative_config == 'none' or hf_overrides == 'none'
"""


def test_drafts_are_measured_and_a_broken_configuration_leaves_the_front(tmp_path: Path) -> None:
    prompts = [
        {"messages": [{"role": "user", "content": f"{question} {more}".strip()}]}
        for more in ("", "Explain briefly.", "Answer in one sentence.")
        for question in ASKED
    ]
    lines = [json.dumps({**prompt, "output_tokens": 40}) for prompt in prompts]
    (tmp_path / "asked.jsonl").write_text("\n".join(lines))
    (tmp_path / "asked.yaml").write_text(
        "description: questions\ntrace: {file: asked.jsonl}\nstop: natural\n"
        "load: {concurrency: 4}\n"
    )
    (tmp_path / "space.yaml").write_text(SPACE)
    graded = [
        json.dumps({**prompt, "regex": f"(?i){answer}", "max_tokens": 32})
        for prompt, answer in zip(prompts, ASKED.values(), strict=False)
    ]
    (tmp_path / "quality.jsonl").write_text("\n".join(graded))
    spec = tuner.study_spec(
        None,
        {
            "model": os.environ["TUNER_SMALL_MODEL"],
            "vllm": os.environ["TUNER_VLLM"],
            "workload": str(tmp_path / "asked.yaml"),
            "space": str(tmp_path / "space.yaml"),
            "quality": str(tmp_path / "quality.jsonl"),
            "allow_output_changes": True,
            "trials": 4,
            "checks": False,
            "objective": ["energy_per_output_token_j"],
            "window_s": 6.0,
            "seed": 1,
            "confirm_repeats": 2,
        },
    )
    study = tuner.run(spec, store=str(tmp_path / "tuner.db"), yes=True)
    drafted = [
        row.measurement.metrics
        for row in study.rows
        if row.measurement is not None
        and row.configuration.flags.get("speculative_config.method") == "ngram"
    ]
    assert drafted
    assert all(0.0 <= one["draft_acceptance_rate"] <= 1.0 for one in drafted)
    for one in drafted:
        at = [one[f"draft_acceptance_rate_pos_{position}"] for position in range(3)]
        assert 1.0 >= at[0] >= at[1] >= at[2] >= 0.0
        assert one["mean_acceptance_length"] == pytest.approx(1.0 + sum(at), rel=0.01)
    broken = {
        row.number
        for row in study.rows
        if "hf_overrides.num_hidden_layers" in row.configuration.flags
    }
    assert broken
    assert not broken & {row.number for row in study.confirmed_front.front}
