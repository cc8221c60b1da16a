"""How far emulated figures may be off: every GPU and kind of model has a stated error."""

import pytest

from tuner.catalog.accuracy import figure_of, kind_of, stated_errors
from tuner.catalog.gpu import gpu_names, load_gpu
from tuner.catalog.model import load_model
from tuner.metrics import METRICS

MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": "dense-16",
    "meta-llama/Llama-3.1-405B-Instruct-FP8": "dense-8",
    "Qwen/Qwen3-30B-A3B": "experts-16",
    "openai/gpt-oss-20b": "experts-8",
}


@pytest.mark.parametrize("name", MODELS)
def test_every_gpu_has_one_for_every_metric_but_shares(name: str) -> None:
    model = load_model(name)
    assert kind_of(model) == MODELS[name]
    for gpu in gpu_names():
        errors = stated_errors(load_gpu(gpu), model)
        assert set(errors) == {metric for metric in METRICS if figure_of(metric) is not None}
        assert all(0.0 < error < 5.0 for error in errors.values())
        assert errors["p50_ttft_ms"] <= errors["p99_ttft_ms"]


def test_a_gpu_with_rows_is_surer_than_one_without() -> None:
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")
    energy = "energy_per_output_token_j"
    known, unknown = (stated_errors(load_gpu(g), model)[energy] for g in ("H200-SXM", "L4"))
    assert known < unknown


def test_a_card_of_a_host_and_a_calibrated_gpu() -> None:
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")
    plain = load_gpu("H200-SXM")
    assert stated_errors(load_gpu("H200-SXM:3"), model) == stated_errors(plain, model)
    calibrated = plain.model_copy(update={"errors": {"energy": 0.04}})
    assert stated_errors(calibrated, model)["energy_per_output_token_j"] == 0.04
