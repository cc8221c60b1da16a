import pytest

from tuner.measurement.intervals import Interval
from tuner.measurement.precision import Precision, achieved, imprecision, watched_percentiles
from tuner.records import Measurement, Source
from tuner.slo import Slo

ENERGY = "energy_per_output_token_j"
METRICS = {ENERGY: 2.0, "p99_tpot_ms": 20.0, "p99_ttft_ms": 100.0}
MEASURED = Measurement(METRICS, 0.0, 60.0, Source.MEASURED, Source.MEASURED)
PRECISION = Precision(
    percentiles=("p99_tpot_ms", "p99_ttft_ms"), bounds=(Slo("p99_ttft_ms", 500.0),)
)


def test_only_percentiles_that_are_told_can_be_watched() -> None:
    texts = ("p99_tpot_ms<=50", "mean_ttft_ms<=9", "p50_itl_ms<=9", "p90_e2el_ms<=9")
    slos = (*map(Slo.parse, texts), Slo.parse("goodput_req_s>=3"))
    assert watched_percentiles(slos) == ("p99_tpot_ms", "p90_e2el_ms")


@pytest.mark.parametrize(
    ("interval", "clear"),
    [((100.0, 499.0), True), ((501.0, 900.0), True), ((100.0, 500.0), False), ((1, 9e9), False)],
)
def test_an_interval_on_one_side_of_its_bound_is_clear(
    interval: tuple[float, float], clear: bool
) -> None:
    assert PRECISION.is_clear("p99_ttft_ms", Interval(*interval)) is clear
    assert not PRECISION.is_clear("p99_tpot_ms", Interval(*interval))  # it has no bound


def test_a_clear_percentile_need_not_be_narrow() -> None:
    known = {
        ENERGY: Interval(1.97, 2.03),
        "p99_tpot_ms": Interval(19.5, 20.5),
        "p99_ttft_ms": Interval(50.0, 150.0),
    }
    found = achieved(PRECISION, MEASURED, known)
    assert [a.half_width_share for a in found] == pytest.approx([0.015, 0.025, 0.5])
    assert all(a.reached for a in found)
    assert imprecision(found) == ()


def test_what_is_too_wide_or_unknown_is_told() -> None:
    known = {ENERGY: Interval(1.8, 2.2), "p99_tpot_ms": Interval(19.5, 20.5)}
    found = achieved(PRECISION, MEASURED, known)
    (warning,) = imprecision(found)
    assert warning.startswith("interval wider than the target: ")
    assert f"{ENERGY} 10.0 % (target 2.0 %)" in warning
    assert "p99_ttft_ms unknown (target 5.0 %)" in warning
    assert "p99_tpot_ms" not in warning
