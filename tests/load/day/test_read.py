"""The load of a day: every format gives the same curve, and what is no load is refused in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve, alike, weighted
from tuner.load.day.read import DayFormat, read_day

NOON_S = 1_715_342_400  # 2024-05-10 12:00 UTC


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "times",
    [
        ["12:00", "12:05", "12:10"],
        [str(NOON_S), str(NOON_S + 300), str(NOON_S + 600)],
        [str(NOON_S * 1000), str((NOON_S + 300) * 1000), str((NOON_S + 600) * 1000)],
        ["2024-05-10T12:00:00Z", "2024-05-10T12:05:00Z", "2024-05-10T12:10:00Z"],
        ["2024-05-10 14:00:00+02:00", "2024-05-10 14:05:00+02:00", "2024-05-10 14:10:00+02:00"],
    ],
)
def test_times_as_people_write_them(tmp_path: Path, times: list[str]) -> None:
    rows = "".join(f"{time},{rate}\n" for time, rate in zip(times, (1.5, 0, 3), strict=True))
    curve = read_day(written(tmp_path, "day.csv", "time,requests_per_s\n" + rows))
    assert curve.step_s == 300.0
    assert curve.rates.tolist() == [1.5, 0.0, 3.0]
    if len(times[0]) > 5:
        assert curve.starts_at == datetime(2024, 5, 10, 12, tzinfo=UTC)


def test_an_answer_of_prometheus_and_its_csv_are_the_same(tmp_path: Path) -> None:
    series = [
        {"metric": {"pod": pod}, "values": [[NOON_S + 60 * i, str(i * 0.5)] for i in range(3)]}
        for pod in ("a", "b")
    ]
    answer = {"status": "success", "data": {"resultType": "matrix", "result": series}}
    curve = read_day(written(tmp_path, "day.json", json.dumps(answer)))
    assert curve.rates.tolist() == [0.0, 1.0, 2.0]
    text = "".join(f"{NOON_S + 60 * i},{i * 0.5},{i * 0.5}\n" for i in range(3))
    path = written(tmp_path, "day.csv", 'Time,"a, first",b\n' + text)
    assert read_day(path).rates.tolist() == curve.rates.tolist()


def test_arrivals_of_a_trace_are_counted_by_the_minute(tmp_path: Path) -> None:
    rows = [f"2024-05-10 00:{m:02d}:{s:02d},100,20" for m in range(3) for s in range(0, 60, 6)]
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n"
    curve = read_day(written(tmp_path, "azure.csv", text))
    assert curve.step_s == 60.0
    assert curve.rates == pytest.approx([10 / 60, 10 / 60])  # the last minute is not whole
    assert read_day(tmp_path / "azure.csv", DayFormat.AZURE).rates.tolist() == curve.rates.tolist()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "0,1\n300,1\n900,1\n1200,1\n",
            "a step of 600 s where the others have 300 s; fill the gap",
        ),
        ("0,1\n300,-2\n600,1\n", "row 2 has -2 requests/s; rates must be from 0 to 1e+07"),
        ("0,1\n300,1e300\n600,1\n", "row 2 has 1e+300 requests/s; rates must be"),
        ("0,1\n300,2\n300,3\n600,1\n", "the time of row 3 is not after the one before"),
        ("0,1\n300,\n600,1\n", "row 2 has nan requests/s"),
        ("0,1\n300,inf\n600,1\n", "row 2 has inf requests/s"),
        ("300,1\n0,1\n", "not after the one before"),
        ("0,0\n300,0\n", "every rate is 0"),
        ("0,1\n", "fewer than two times"),
        ("0,1 req/s\n300,1\n", "plain number"),
        ("noon,1\n13:00,1\n", "a time must be"),
        ("0,1,2\n300,1\n", "the header has 2"),
    ],
)
def test_what_is_no_load_is_told_in_one_sentence(tmp_path: Path, rows: str, said: str) -> None:
    path = written(tmp_path, "day.csv", "time,requests_per_s\n" + rows)
    with pytest.raises(UsageError) as error:
        read_day(path)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("day.json", "[]"),
        ("day.json", '{"data": {"result": [{"values": [["x", 1]]}]}}'),
        ("day.json", "{"),
        ("day.csv", ""),
        ("day.csv", "a,b\n1,2\n"),
        ("day.jsonl", '{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": []}'),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(UsageError, match="day"):
        read_day(written(tmp_path, name, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        read_day(tmp_path / "none.csv")


@settings(max_examples=30, deadline=None)
@given(rates=st.lists(st.floats(0.0, 50.0), min_size=2, max_size=20), cut=st.floats(0.1, 0.9))
def test_arrivals_follow_the_curve_and_a_stretch_is_the_same_alone(
    rates: list[float], cut: float
) -> None:
    curve = RateCurve(60.0, np.array(rates), "made up")
    whole = list(curve.arrivals_s(0.0, curve.length_s, 7))
    assert whole == sorted(whole)
    expected = curve.requests
    assert abs(len(whole) - expected) <= 6.0 * expected**0.5 + 6.0
    at_s = cut * curve.length_s
    parts = [*curve.arrivals_s(0.0, at_s, 7), *curve.arrivals_s(at_s, curve.length_s, 7)]
    assert parts == whole


def test_loads_of_the_same_hours_are_brought_to_the_same_steps() -> None:
    hourly = RateCurve(3600.0, np.array([1.0, 3.0]), "a.csv")
    fine = RateCurve(1800.0, np.array([2.0, 4.0, 6.0, 8.0]), "b.csv")
    first, second = alike([hourly, fine])
    assert first.step_s == second.step_s == 1800.0
    assert first.rates.tolist() == [1.0, 1.0, 3.0, 3.0]
    assert weighted([hourly, fine], [2.0, 0.5]).rates.tolist() == [3.0, 4.0, 9.0, 10.0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (RateCurve(3600.0, np.ones(3), "b.csv"), "loads of the same hours"),
        (RateCurve(2880.0, np.ones(5), "b.csv"), "no multiple"),
        (RateCurve(3600.0, np.ones(4), "b.csv", datetime(2026, 1, 1, tzinfo=UTC)), "begins at"),
    ],
)
def test_loads_that_do_not_go_together_are_refused(other: RateCurve, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        alike([RateCurve(3600.0, np.ones(4), "a.csv"), other])
