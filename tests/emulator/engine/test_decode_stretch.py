import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.emulator.engine.decode_stretch import DecodeStretch, Jitter, evenly_spaced

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
    powers_w = np.full(count, 500.0)
    stretch = DecodeStretch(np.array(durations_s), None, powers_w, 1980.0, start_s, 0.0)
    clock_s = energy_j = 0.0
    clock_s += start_s
    for place, duration_s in enumerate(durations_s):
        clock_s += duration_s
        energy_j += 500.0 * duration_s
        assert stretch.ends_s[place] == clock_s
        assert stretch.energies_j[place] == energy_j
