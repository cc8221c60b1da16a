"""What vLLM's benchmark wrote is read by formula; what it did not write stays unknown."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.bench_serve_results import RESULT, written
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.metrics import METRICS
from tuner.store.imports.bench_serve import read_results


def test_a_result(tmp_path: Path) -> None:
    (point,) = read_results(written(tmp_path, RESULT))
    assert (point.tool, point.file_name) == ("vllm bench serve", "result.json")
    assert (point.request_rate, point.concurrency) == (None, 16)
    assert (point.completed, point.failed, point.duration_s) == (198, 2, 50.0)
    assert point.metrics == {
        "output_throughput_tok_s": 500.0,
        "request_throughput_req_s": 3.96,
        "mean_ttft_ms": 80.0,
        "p50_ttft_ms": 70.0,
        "p99_ttft_ms": 190.0,
        "mean_tpot_ms": 20.0,
        "p50_tpot_ms": 19.0,
        "p99_tpot_ms": 31.0,
    }


def test_a_rate_that_is_held_back_hides_the_wait_so_ttft_is_left_out(tmp_path: Path) -> None:
    held = {**RESULT, "request_rate": 4.0, "p99_e2el_ms": 900.0}
    held["p99_e2el_including_client_queue_ms"] = 1700.0
    (point,) = read_results(written(tmp_path, held))
    assert point.metrics["p99_e2el_ms"] == 1700.0
    assert not [name for name in point.metrics if "ttft" in name]


def test_results_that_were_appended(tmp_path: Path) -> None:
    first, second = read_results(written(tmp_path, RESULT, {**RESULT, "p99_tpot_ms": 33.0}))
    assert (first.metrics["p99_tpot_ms"], second.metrics["p99_tpot_ms"]) == (31.0, 33.0)
    assert first.sha256 != second.sha256


def test_what_is_zero_infinite_or_odd_is_unknown(tmp_path: Path) -> None:
    odd = {**RESULT, "p99_tpot_ms": 0.0, "mean_tpot_ms": math.nan, "median_tpot_ms": "fast"}
    (point,) = read_results(written(tmp_path, {**odd, "failed": -1, "output_throughput": True}))
    assert not {"p99_tpot_ms", "mean_tpot_ms", "p50_tpot_ms"} & set(point.metrics)
    assert "output_throughput_tok_s" not in point.metrics
    assert point.failed is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no JSON object"),
        (b"[1, 2]", "holds no JSON object"),
        (b"not json", "holds no JSON object"),
        (b"[" * 100_000, "holds no JSON object"),
        (b"\xff\xfe\x00", "is not text"),
        (b"{}", "lacks completed"),
        (json.dumps({**RESULT, "duration": 0}).encode(), "lacks completed, duration"),
        (json.dumps({**RESULT, "completed": 0}).encode(), "no request of that run succeeded"),
        (json.dumps({**RESULT, "completed": 10**400}).encode(), "lacks completed"),
        (b'{"completed": 5, "duration": 1, "request_throughput": 0}', "holds no throughput"),
    ],
)
def test_files_that_are_no_result(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=says) as caught:
        read_results(path)
    assert "bad.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            read_results(path)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@settings(max_examples=30)
@given(changes=st.dictionaries(st.sampled_from(sorted(RESULT)), JUNK, max_size=6))
def test_any_value_in_any_field_is_a_point_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    path = written(tmp_path_factory.getbasetemp(), {**RESULT, **changes})
    try:
        (point,) = read_results(path)
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert point.completed > 0
    assert set(point.metrics) <= set(METRICS)
    assert all(math.isfinite(v) and v > 0 for v in point.metrics.values())
