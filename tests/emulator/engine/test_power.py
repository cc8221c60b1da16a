from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.catalog.gpu import gpu_names, load_gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.step import Batch, StepModel, StepParts
from tuner.errors import UsageError

GPUS = {name: load_gpu(name) for name in gpu_names()}
MODELS = {
    name: load_model(name)
    for name in (
        "meta-llama/Llama-3.1-8B-Instruct",
        "Qwen/Qwen3-30B-A3B",
        "openai/gpt-oss-20b",
        "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
    )
}
MODEL = MODELS["meta-llama/Llama-3.1-8B-Instruct"]
names = st.sampled_from(sorted(GPUS))
shapes = st.sampled_from(sorted(MODELS))
shares = st.floats(0, 1)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    decoding = draw(st.integers(1, 512))
    prefill = draw(st.integers(0, 8192))
    return Batch(
        decode_sequences=decoding,
        decode_context_tokens=decoding * draw(st.integers(1, 4096)),
        prefill_tokens=prefill,
        prefill_pairs=prefill**2 / 2,
        prefill_context_tokens=prefill,
        sampled_sequences=decoding,
        scheduled_sequences=decoding,
    )


def parts_of(name: str, batch: Batch, model: ModelShape = MODEL) -> StepParts:
    return StepModel(model, GPUS[name]).parts(batch)


def limited(name: str, share: float) -> PowerModel:
    gpu = GPUS[name]
    limit_w = gpu.min_limit_w + share * (gpu.max_limit_w - gpu.min_limit_w)
    return PowerModel.under(gpu, {"power_limit_w": limit_w})


@settings(deadline=None, max_examples=60)
@given(names, shapes, batches(), shares, shares)
def test_a_higher_limit_is_never_slower(
    name: str, shape: str, batch: Batch, a: float, b: float
) -> None:
    parts = parts_of(name, batch, MODELS[shape])
    low, high = (limited(name, share).step(parts) for share in sorted((a, b)))
    assert high.duration_s <= low.duration_s


@settings(deadline=None, max_examples=60)
@given(names, shapes, batches())
def test_a_lower_clock_never_draws_more_nor_is_faster(name: str, shape: str, batch: Batch) -> None:
    gpu, parts = GPUS[name], parts_of(name, batch, MODELS[shape])
    model = PowerModel.under(gpu, {})
    clocks = range(gpu.min_clock_mhz, gpu.max_clock_mhz + 1, 15)
    costs = [model.at_clock(parts, clock) for clock in clocks]
    for slow, fast in pairwise(costs):
        assert slow.power_w <= fast.power_w * (1 + 1e-9)
        assert slow.duration_s >= fast.duration_s


@settings(deadline=None, max_examples=60)
@given(names, batches(), shares, st.none() | st.integers(0, 4000))
def test_the_governor_takes_the_highest_clock_that_keeps_the_limit(
    name: str, batch: Batch, share: float, near_mhz: int | None
) -> None:
    model, parts = limited(name, share), parts_of(name, batch)
    clock = model.clock_for(parts, near_mhz)
    allowed_w = model.limit_w * model.gpu.limit_use
    assert (clock - model.gpu.min_clock_mhz) % 15 == 0
    if clock > model.gpu.min_clock_mhz:
        assert model.at_clock(parts, clock).power_w <= allowed_w
    if clock < model.highest_clock_mhz:
        assert model.at_clock(parts, clock + 15).power_w > allowed_w


@settings(deadline=None, max_examples=60)
@given(names, shapes, batches(), shares)
def test_power_lies_between_idle_and_the_limit(
    name: str, shape: str, batch: Batch, share: float
) -> None:
    model, parts = limited(name, share), parts_of(name, batch, MODELS[shape])
    power_w = model.step(parts).power_w
    assert power_w >= model.gpu.idle_w
    assert power_w <= model.limit_w or model.clock_for(parts) == model.gpu.min_clock_mhz


def test_large_products_run_into_the_limit_as_on_a_real_h100() -> None:
    """Measured: 67.8 % of the peak at 1,365 MHz and 696 W (`real_gpu/products.py`)."""
    gpu = load_gpu("H100-SXM")
    tokens = 8192
    product = StepModel(MODEL, gpu, async_scheduling=True).parts(Batch(prefill_tokens=tokens))
    model = PowerModel.under(gpu, {})
    flop = product.linear_compute_s * gpu.bf16_tflops * 1e12 * gpu.matrix_efficiency
    cost = model.step(product)
    assert 0.55 < flop / cost.duration_s / (gpu.bf16_tflops * 1e12) < 0.75
    assert 1290 <= model.clock_for(product) <= 1455


def test_a_locked_clock_is_a_ceiling() -> None:
    gpu = load_gpu("H100-SXM")
    model = PowerModel.under(gpu, {"sm_clock_mhz": 1234})
    assert model.clock_for(parts_of("H100-SXM", Batch(decode_sequences=1))) == 1230


def test_voltage_is_flat_below_the_knee_and_one_at_the_top() -> None:
    gpu = load_gpu("H100-SXM")
    model = PowerModel.under(gpu, {})
    assert model.voltage(gpu.min_clock_mhz) == model.voltage(gpu.knee_mhz) == gpu.knee_voltage
    assert model.voltage(gpu.max_clock_mhz) == pytest.approx(1.0)


def test_decode_has_headroom_and_prefill_has_none_at_the_default_limit() -> None:
    gpu = load_gpu("H100-SXM")
    decode = parts_of("H100-SXM", Batch(16, 16 * 600, sampled_sequences=16))
    prefill = parts_of("H100-SXM", Batch(prefill_tokens=8192, prefill_pairs=8192 * 256))
    model = PowerModel.under(gpu, {})
    assert model.clock_for(decode) == model.highest_clock_mhz
    assert model.clock_for(prefill) < model.highest_clock_mhz
    assert model.step(prefill).power_w > 0.95 * gpu.default_limit_w


def test_decode_is_not_slowed_down_to_sixty_percent_of_the_limit() -> None:
    decode = parts_of("H100-SXM", Batch(16, 16 * 600, sampled_sequences=16))
    gpu = load_gpu("H100-SXM")
    stock = PowerModel.under(gpu, {}).step(decode).duration_s
    at = {s: PowerModel.under(gpu, {"power_limit_w": s * 700}).step(decode) for s in (0.6, 0.35)}
    assert at[0.6].duration_s == pytest.approx(stock, rel=0.01)
    assert at[0.35].duration_s > 1.05 * stock


def test_even_the_lowest_limit_is_kept_in_decode() -> None:
    decode = parts_of("H100-SXM", Batch(16, 16 * 600, sampled_sequences=16))
    lowest = PowerModel.under(load_gpu("H100-SXM"), {"power_limit_w": 200})
    assert lowest.step(decode).power_w <= 200


def test_idle_power_falls_with_a_locked_clock() -> None:
    gpu = load_gpu("H100-SXM")
    assert PowerModel.under(gpu, {}).idle_w == gpu.loaded_idle_w
    assert gpu.idle_w < PowerModel.under(gpu, {"sm_clock_mhz": 900}).idle_w < gpu.loaded_idle_w


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"power_limit_w": 100}, r"power_limit_w=100 is out of range: H100-SXM takes 200 to 700 W"),
        ({"power_limit_w": 701}, "out of range"),
        ({"sm_clock_mhz": 5000}, "sm_clock_mhz=5000 is out of range"),
        ({"power_limit_w": "full"}, "power_limit_w must be a number, found 'full'"),
        ({"power_limit": 300}, "did you mean 'power_limit_w'"),
    ],
)
def test_what_the_gpu_would_refuse_is_a_usage_error(
    device: dict[str, float | str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        PowerModel.under(load_gpu("H100-SXM"), device)


@settings(deadline=None, max_examples=60)
@given(shapes, batches(), shares, st.floats(-30, 40), st.floats(-30, 40))
def test_a_warmer_card_leaks_more_and_is_never_faster(
    shape: str, batch: Batch, share: float, a: float, b: float
) -> None:
    gpu = GPUS["H200-SXM"]
    assert gpu.thermal is not None
    parts = StepModel(MODELS[shape], gpu).parts(batch)
    costs, at_top = [], []
    for warmer_k in sorted((a, b)):
        thermal = gpu.thermal.model_copy(update={"warmer_k": warmer_k})
        limit_w = gpu.min_limit_w + share * (gpu.max_limit_w - gpu.min_limit_w)
        here = gpu.model_copy(update={"thermal": thermal})
        power = PowerModel.under(here, {"power_limit_w": limit_w})
        costs.append(power.step(parts))
        at_top.append(power.at_clock(parts, gpu.max_clock_mhz).power_w)
        celsius = thermal.coolant_c + warmer_k + thermal.kelvin_per_w * costs[-1].power_w
        assert celsius <= thermal.slowdown_c + 1e-6 or costs[-1].clock_mhz == gpu.min_clock_mhz
    assert at_top[1] - at_top[0] == pytest.approx(gpu.thermal.leakage_w_per_k * abs(a - b))
    assert costs[0].duration_s <= costs[1].duration_s * (1 + 1e-9)


def test_temperatures_are_those_of_the_rows_and_change_nothing_where_these_were_measured() -> None:
    h200, pro = GPUS["H200-SXM"].thermal, GPUS["RTX-PRO-6000"].thermal
    assert h200 is not None and pro is not None
    for thermal, power_w, celsius in ((h200, 713, 57), (h200, 280, 45.2), (pro, 450, 69.2)):
        found_c = thermal.coolant_c + thermal.kelvin_per_w * power_w
        assert found_c == pytest.approx(celsius, abs=2)
    gpu = GPUS["H200-SXM"]
    plain = PowerModel.under(gpu.model_copy(update={"thermal": None}), {})
    parts = parts_of("H200-SXM", Batch(64, 64_000, sampled_sequences=64, scheduled_sequences=64))
    assert PowerModel.under(gpu, {}).step(parts) == plain.step(parts)
