"""Thinking off, low and high on a real vLLM with a real model: energy per answer and per right one.

SmolLM2-135M-Instruct has no switch for thinking, so a level is a system message that asks for as
much reasoning before the answer, and a cap on its tokens. `.ci/small-model.sh` makes the model;
TUNER_SMALL_MODEL is its folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers.tiny_vllm import needs_vllm

import tuner
from tuner.analysis.tasks.levels import thinking_levels

pytestmark = [
    *needs_vllm(1800),
    pytest.mark.skipif(
        "TUNER_SMALL_MODEL" not in os.environ, reason="TUNER_SMALL_MODEL names no folder"
    ),
]

SPACE = """
name: thinking
fixed:
  flags: {enforce_eager: true, max_model_len: 512}
  environment: {VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1}
load:
  thinking: {type: choice, choices: [off, low, high]}
"""
OFF = "{system: 'Answer with one word or number only.'}"
WORKLOAD = f"""
description: questions
trace: {{file: asked.jsonl}}
stop: natural
thinking: {OFF}
thinking_levels:
  off: {OFF}
  low: {{system: 'Say in one short sentence why, then give the answer.', token_multiplier: 4}}
  high: {{system: 'Think step by step before you answer. Write out each step, check it, and end
    with the answer.', token_multiplier: 12}}
load: {{concurrency: 4}}
"""
ASKED = {
    "What is the capital of France?": "Paris",
    "What is the capital of Japan?": "Tokyo",
    "What is the capital of Italy?": "Rome",
    "What is the capital of Egypt?": "Cairo",
    "What is the opposite of hot?": "cold",
    "What is the opposite of up?": "down",
    "What do bees make?": "honey",
    "Which animal says meow?": "cat",
    "What is the first month of the year?": "January",
    "What is the color of grass?": "green",
    "What is 2 + 2?": "4",
    "What is 3 + 5?": "8",
    "What is 10 - 4?": "6",
    "How many days are in a week?": "7|seven",
    "How many legs has a spider?": "8|eight",
    "What is frozen water called?": "ice",
}


def test_every_level_is_measured_and_graded(tmp_path: Path) -> None:
    chats = [{"messages": [{"role": "user", "content": question}]} for question in ASKED]
    (tmp_path / "asked.jsonl").write_text(
        "\n".join(json.dumps({**chat, "output_tokens": 16}) for chat in chats)
    )
    (tmp_path / "asked.yaml").write_text(WORKLOAD)
    (tmp_path / "space.yaml").write_text(SPACE)
    graded = [
        json.dumps({**chat, "regex": rf"(?i)\b({answer})\b", "max_tokens": 16})
        for chat, answer in zip(chats, ASKED.values(), strict=True)
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
            "trials": 3,
            "checks": False,
            "window_s": 15.0,
            "confirm_repeats": 2,
        },
    )
    study = tuner.run(
        spec, store=os.environ.get("TUNER_STORE", str(tmp_path / "tuner.db")), yes=True
    )
    levels = {one.level: one for one in thinking_levels(study.confirmed_front)}
    assert set(levels) == {"off", "low", "high"}
    tokens = [levels[name].tokens or 0.0 for name in ("off", "low", "high")]
    assert tokens == sorted(tokens)
    assert all(one.right is not None for one in levels.values())
    assert (levels["high"].energy_multiplier or 0.0) > 1.5
