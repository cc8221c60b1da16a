"""The anytime-valid test: how often it is wrong if it is asked after every observation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.measurement.racing.anytime_test import LEAST_BATCHES, log_evidence

ALARM = math.log(100.0)  # of one in a hundred


def ever_alarms(values: np.ndarray) -> bool:
    return any(log_evidence(values[:n], 0.0) > ALARM for n in range(2, values.size + 1))


@pytest.mark.parametrize("mean", [0.0, -0.2])
@pytest.mark.parametrize("sd", [0.003, 30.0])
def test_asked_forty_times_it_is_wrong_once_in_a_hundred_at_most(mean: float, sd: float) -> None:
    """Of 2,000 series without a difference, or with the opposite one: 20, and their luck."""
    rng = np.random.default_rng(1)
    wrong = sum(ever_alarms(sd * (mean + rng.standard_normal(40))) for _ in range(2000))
    assert wrong <= 30


def test_a_t_test_asked_as_often_would_not_be() -> None:
    """So the simulation can tell the difference."""
    rng = np.random.default_rng(1)

    def t(values: np.ndarray) -> float:
        return float(values.mean() / (values.std(ddof=1) / math.sqrt(values.size)))

    wrong = 0
    for _ in range(500):
        values = rng.standard_normal(40)
        wrong += any(t(values[:n]) > 2.5 for n in range(10, 41))  # about 1 % each
    assert wrong > 15


def test_a_clear_difference_takes_few_observations() -> None:
    rng = np.random.default_rng(2)
    found = [ever_alarms(0.05 + 0.01 * rng.standard_normal(6)) for _ in range(200)]
    assert np.mean(found) > 0.95


def test_a_few_equal_values_are_no_proof_of_more_than_they_show() -> None:
    assert log_evidence(np.full(LEAST_BATCHES - 1, 1.0), 0.0) == -math.inf
    assert log_evidence(np.full(10, 0.0), 0.0) == -math.inf
    assert log_evidence(np.full(10, 1e-5), 0.0) < ALARM


@given(
    values=st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=30),
    null=st.floats(-1.0, 1.0),
    more=st.floats(0.0, 1.0),
)
@settings(max_examples=100)
def test_what_is_above_a_value_is_above_a_lower_one(
    values: list[float], null: float, more: float
) -> None:
    column = np.array(values)
    assert log_evidence(column, null - more) >= log_evidence(column, null) - 1e-9
