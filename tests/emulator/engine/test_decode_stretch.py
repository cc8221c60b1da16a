import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.emulator.engine.decode_stretch import (
    DecodeCosts,
    DecodeStretch,
    Jitter,
    StretchCost,
    evenly_spaced,
)
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.step import Batch, StepModel

times = st.floats(1e-4, 1.0)


@given(times, times, st.integers(2, 4096))
def test_evenly_spaced_is_linspace_to_the_last_digit(first: float, last: float, count: int) -> None:
    assert np.array_equal(evenly_spaced(first, last, count), np.linspace(first, last, count))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["one", "many", "ahead"]), st.integers(1, 700))))
def test_the_jitter_is_one_stream_however_it_is_taken(asked: list[tuple[str, int]]) -> None:
    taken: list[float] = []
    jitter = Jitter(0.02, seed=7)
    for how, count in asked:
        if how == "one":
            taken += [jitter.factor() for _ in range(count)]
        elif how == "many":
            taken += jitter.factors(count).tolist()
        else:
            taken += jitter.ahead(count).tolist()
            jitter.skip(count)
    normals = np.random.default_rng(7).standard_normal(len(taken))
    np.testing.assert_allclose(taken, np.exp(0.02 * normals), rtol=1e-15)


@given(st.lists(times, min_size=1, max_size=200), st.floats(0, 1e5))
def test_a_stretch_adds_up_as_single_steps_do(durations_s: list[float], start_s: float) -> None:
    count = len(durations_s)
    cost = StretchCost(np.array(durations_s), np.full(count, 500.0), 1980.0)
    stretch = DecodeStretch(cost, 1, None, start_s, 0.0)
    clock_s = energy_j = 0.0
    clock_s += start_s
    for place, duration_s in enumerate(durations_s):
        clock_s += duration_s
        energy_j += 500.0 * duration_s
        assert stretch.ends_s[place] == clock_s
        assert stretch.energies_j[place] == energy_j


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B"]),
    st.integers(1, 600),
    st.integers(1, 4096),
    st.sampled_from([250, 400, 700]),
    st.none() | st.integers(0, 109),
)
def test_costs_of_decoding_are_those_of_any_step_to_the_last_digit(
    name: str, sequences: int, context: int, limit_w: int, near: int | None
) -> None:
    gpu = load_gpu("H100-SXM")
    steps = StepModel(load_model(name), gpu)
    power = PowerModel.under(gpu, {"power_limit_w": limit_w})
    costs, tokens = DecodeCosts(steps, power), sequences * context
    near_mhz = None if near is None else gpu.min_clock_mhz + 15.0 * near
    batch = Batch(
        decode_sequences=sequences,
        decode_context_tokens=tokens,
        sampled_sequences=sequences,
        scheduled_sequences=sequences,
    )
    expected = power.step(steps.parts(batch))
    assert costs.step(sequences, tokens, near_mhz) == expected
    stretch = costs.stretch(sequences, np.full(3, float(tokens)), expected.clock_mhz)
    if stretch is not None:
        assert stretch.durations_s.tolist() == [expected.duration_s] * 3
        assert stretch.powers_w.tolist() == [expected.power_w] * 3
