"""Student's t: the table is scipy's, and the rest is asked of it."""

from __future__ import annotations

import pytest
from scipy.special import stdtrit

from tuner.measurement.statistics.student_t import student_t_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [
        (0.975, 1, 12.70620),
        (0.975, 2, 4.30265),
        (0.975, 3, 3.18245),
        (0.975, 5, 2.57058),
        (0.975, 10, 2.22814),
        (0.975, 30, 2.04227),
        (0.975, 120, 1.97993),
        (0.975, 1e9, 1.95996),
        (0.95, 4, 2.13185),
        (0.995, 7, 3.49948),
        (0.9995, 3, 12.92398),
        (0.5, 5, 0.0),
    ],
)
def test_students_t_is_that_of_the_tables(
    probability: float, freedom: float, expected: float
) -> None:
    assert student_t_quantile(probability, freedom) == pytest.approx(expected, abs=1e-5)


def test_the_table_of_usual_quantiles_is_that_of_scipy() -> None:
    for freedom in range(1, 70):
        expected = float(stdtrit(freedom, 0.975))
        assert student_t_quantile(0.975, freedom) == pytest.approx(expected, rel=1e-12)
