"""Our scheduler and vLLM's own class, step by step, on the same requests."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.emulator.engine.answers import Answers
from tuner.emulator.engine.scheduler import Scheduler
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.launch_rules import Launch

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("TUNER_VLLM" not in os.environ, reason="TUNER_VLLM names no vllm"),
    pytest.mark.timeout(400),
]

MODEL_LEN = 1024
CONFIG = """{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
  "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 512,
  "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 1024,
  "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"
}"""
ANSWERS = Answers(512)


def drawn_case(seed: int) -> dict[str, Any]:
    """Requests with shared beginnings and follow-up turns, and a cache that is mostly too small."""
    rng = np.random.default_rng(seed)
    prefixes = [rng.integers(3, 512, int(rng.integers(0, 200)), dtype=np.int32) for _ in range(3)]
    requests, step = [], 0
    turns: list[np.ndarray[Any, Any]] = []
    for _ in range(60):
        own = rng.integers(3, 512, int(rng.integers(1, 150)), dtype=np.int32)
        pick = prefixes[int(rng.integers(3))]
        if turns and rng.random() < 0.3:
            pick = turns[int(rng.integers(len(turns)))]
        prompt = np.concatenate([pick, own])[:600]
        output = int(rng.integers(1, 120))
        answer = ANSWERS.tokens(prompt, output)
        turns.append(np.concatenate([prompt, answer]))
        step += int(rng.integers(0, 12))
        requests.append({"step": step, "prompt": prompt.tolist(), "answer": answer.tolist()})
    tokens = int(rng.choice([64, 100, 256, 1024]))
    seqs = int(rng.choice([2, 8, 32]))
    limits: dict[int, tuple[int, int]] = {}
    if seed % 3 == 0:  # live limits, below what runs at times
        for at in rng.integers(10, 700, 8):
            limits[int(at)] = (int(rng.integers(1, seqs + 1)), int(rng.integers(4, tokens + 1)))
    return {
        "requests": requests,
        "steps": 20_000,
        "blocks": int(rng.choice([64, 80, 128, 2000])),
        "max_num_seqs": seqs,
        "max_num_batched_tokens": tokens if seed % 4 else MODEL_LEN,
        "threshold": int(rng.choice([0, 0, 24, 100])),
        "chunked": bool(seed % 4),
        "prefix_caching": bool(seed % 2),
        "async": bool((seed // 2) % 2),
        "limits": limits,
    }


def our_run(case: dict[str, Any]) -> dict[str, Any]:
    launch = Launch(
        max_num_seqs=case["max_num_seqs"],
        max_num_batched_tokens=case["max_num_batched_tokens"],
        max_model_len=MODEL_LEN,
        tensor_parallel_size=1,
        chunked_prefill=case["chunked"],
        eager=False,
        kv_bytes=2,
        kv_blocks=case["blocks"],
        prefix_caching=case["prefix_caching"],
        async_scheduling=case["async"],
        long_prefill_token_threshold=case["threshold"],
    )
    scheduler = Scheduler(launch)
    todo = list(enumerate(case["requests"]))
    steps: list[list[list[int]]] = []
    for step in range(case["steps"]):
        if step in case["limits"]:
            scheduler.max_num_seqs, scheduler.max_num_batched_tokens = case["limits"][step]
        while todo and todo[0][1]["step"] <= step:
            number, facts = todo.pop(0)
            prompt = np.array(facts["prompt"], np.int32)
            sequence = Sequence(number, len(prompt), len(facts["answer"]), prompt, ANSWERS)
            scheduler.submit(sequence)
        chunks = scheduler.schedule(step)
        scheduled = [[c.sequence.request_id, c.tokens] for c in chunks]
        decoding = (s for s in scheduler.running if s.started_decode_step is not None)
        scheduled += [[s.request_id, 1] for s in decoding]
        steps.append(sorted(scheduled))
        scheduler.ran(step, chunks)
        scheduler.collect(step + 1)
        if not todo and not scheduler.running and not scheduler.waiting_count:
            break
    assert scheduler.blocks.free == case["blocks"]
    return {
        "steps": steps,
        "queries": scheduler.cache.queries,
        "hits": scheduler.cache.hits,
        "preemptions": scheduler.preemptions,
    }


def test_every_step_is_vllms(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(CONFIG)
    cases = [drawn_case(seed) for seed in range(48)]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    python = Path(os.environ["TUNER_VLLM"]).with_name("python")
    script = Path(__file__).parents[2] / "helpers" / "real_scheduler.py"
    files = [str(tmp_path / name) for name in ("model", "cases.json", "steps.json")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    ended = subprocess.run(
        [str(python), str(script), *files], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    theirs = json.loads((tmp_path / "steps.json").read_text())
    total = preemptions = hits = 0
    for seed, (case, real) in enumerate(zip(cases, theirs, strict=True)):
        ours = our_run(case)
        for step, (our, their) in enumerate(zip(ours["steps"], real["steps"], strict=False)):
            assert our == their, f"case {seed}, step {step}"
        assert ours["preemptions"] == real["preemptions"], f"case {seed}"
        assert (ours["queries"], ours["hits"]) == (real["queries"], real["hits"]), f"case {seed}"
        assert sum(map(len, ours["steps"])) == sum(map(len, real["steps"])), f"case {seed}"
        total, preemptions = total + len(real["steps"]), preemptions + real["preemptions"]
        hits += real["hits"]
    assert total > 5_000  # the cases are no shorter than they look
    assert preemptions > 100
    assert hits > 10_000
    print(f"{total} steps, {preemptions} preemptions, {hits} tokens found in the prefix cache")
