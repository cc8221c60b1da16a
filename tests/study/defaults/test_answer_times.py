"""How long a load grows: of one length, and of all."""

import numpy as np
import pytest

from tuner.study.defaults.answer_times import fills_in_s


def test_answers_of_one_length_fill_the_server_evenly() -> None:
    tokens = np.full(100, 200.0)
    assert fills_in_s(tokens, 50.0, 0.9) == pytest.approx(9.0)  # of 10 s
    assert fills_in_s(tokens, 50.0, 1.0) == pytest.approx(10.0)


def test_answers_of_all_lengths() -> None:
    """In flight at t is who arrived in (t - S, t], or since the beginning: min(S, t) each."""
    tokens = np.random.default_rng(1).lognormal(6.0, 1.0, 1000)
    at_s, lasts_s = fills_in_s(tokens, 10.0, 0.9), tokens / 100.0
    assert np.minimum(lasts_s, at_s).mean() == pytest.approx(0.9 * lasts_s.mean())
