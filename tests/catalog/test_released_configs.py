"""`tuner measure` of a model that is known by its config.json alone, as released."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.studies import InProcess

from tuner.catalog.model import load_model

CONFIGS = Path(__file__).parent / "configs"  # the fields of the released files
# parameters of the language part as published, billions; where it fits
MODELS = {
    "llama-3.1-8b": (8.03, "H100-SXM", 2),
    "qwen3-30b-a3b": (30.5, "H100-SXM", 2),
    "mixtral-8x7b": (46.7, "H100-SXM", 2),
    "gpt-oss-20b": (20.9, "H100-SXM", 2),
    "deepseek-v3": (671.0, "B200-SXM", 8),
    "gemma-3-27b-it": (27.0, "H100-SXM", 2),
    "gemma-3-4b-it": (3.88, "H100-SXM", 2),
    "llama-4-scout": (107.8, "B200-SXM", 8),
}
LATENCIES = [
    f"{statistic}_{kind}_ms"
    for statistic in ("mean", "p50", "p90", "p95", "p99")
    for kind in ("ttft", "tpot", "itl", "e2el")
]
METRICS = {
    "energy_per_output_token_j", "energy_per_input_token_j", "energy_per_request_j",
    "mean_power_w", "goodput_req_s",
    "output_throughput_tok_s", "request_throughput_req_s", "offered_rate_req_s",
    "slo_attainment", *LATENCIES,
}  # fmt: skip


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text((CONFIGS / f"{name}.json").read_text())
    return tmp_path


@pytest.mark.parametrize("name", MODELS)
def test_every_metric_of_a_model_known_by_its_config(name: str, folder: Path) -> None:
    billions, gpu, gpus = MODELS[name]
    assert load_model(str(folder)).parameters == pytest.approx(billions * 1e9, rel=0.01)
    words = (
        f"measure --emulate {gpu} --model {folder} --workload chat --window-s 20 --concurrency 64 "
        f"--set max_num_seqs=64 --set tensor_parallel_size={gpus} --set power_limit_w=400 "
        "--set max_model_len=16384 --format json"
    )
    done = InProcess(folder)(*words.split())
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["energy_source"] == answer["latency_source"] == "emulated"
    metrics = answer["metrics"]
    assert set(metrics) == METRICS
    assert 0.3 * gpus * 400 < metrics["mean_power_w"] <= gpus * 400 * 1.05
    made_s = metrics["output_throughput_tok_s"]
    assert metrics["energy_per_output_token_j"] * made_s == pytest.approx(metrics["mean_power_w"])
    assert 2 < metrics["p50_itl_ms"] < 100


@pytest.mark.parametrize("name", ["gemma-3-27b-it", "gemma-3-4b-it"])
def test_fields_that_a_release_leaves_out_have_the_class_defaults(name: str, folder: Path) -> None:
    shipped = load_model(f"google/{name}")
    assert replace(load_model(str(folder)), name=shipped.name) == shipped
