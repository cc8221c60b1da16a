"""A result file as `vllm bench serve --save-result` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# the fields that vLLM 0.32's `vllm bench serve --save-result` writes, less its details
RESULT: dict[str, Any] = {
    "date": "20260301-220000",
    "endpoint_type": "openai",
    "backend": "openai",
    "label": None,
    "model_id": "Qwen/Qwen3-8B",
    "tokenizer_id": "Qwen/Qwen3-8B",
    "num_prompts": 200,
    "request_rate": "inf",
    "burstiness": 1.0,
    "max_concurrency": 16,
    "duration": 50.0,
    "completed": 198,
    "failed": 2,
    "total_input_tokens": 40000,
    "total_output_tokens": 25000,
    "request_throughput": 3.96,
    "request_goodput": None,
    "output_throughput": 500.0,
    "total_token_throughput": 1300.0,
    "mean_ttft_ms": 80.0,
    "median_ttft_ms": 70.0,
    "std_ttft_ms": 12.0,
    "p99_ttft_ms": 190.0,
    "mean_tpot_ms": 20.0,
    "median_tpot_ms": 19.0,
    "std_tpot_ms": 1.0,
    "p99_tpot_ms": 31.0,
    "mean_itl_ms": 20.0,
    "p99_itl_ms": 60.0,
}


def written(folder: Path, *results: object) -> Path:
    path = folder / "result.json"
    path.write_text("\n".join(json.dumps(result) for result in results))
    return path
