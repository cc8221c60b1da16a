"""What vLLM's benchmark wrote is read by formula; what it did not write stays unknown."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.bench_serve_results import RESULT, written
from helpers.hostile import cases, one_sentence_at_most
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.metrics import METRICS
from tuner.store import UNKNOWN_MODEL
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
        with pytest.raises(UsageError, match=r"cannot read|no results of `vllm bench sweep`"):
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


SGLANG = {
    "backend": "sglang",
    "tag": None,
    "request_rate": "inf",
    "max_concurrency": 16,
    "duration": 50.0,
    "completed": 198,
    "request_throughput": 3.96,
    "output_throughput": 500.0,
    "total_throughput": 1300.0,
    "mean_ttft_ms": 80.0,
    "p99_e2e_latency_ms": 2500.0,
    "mean_e2e_latency_ms": 1500.0,
    "concurrency": 15.1,
}


def test_a_result_of_sglangs_tool(tmp_path: Path) -> None:
    (point,) = read_results(written(tmp_path, SGLANG))
    assert (point.tool, point.server) == ("SGLang bench_serving", "SGLang")
    assert point.model == UNKNOWN_MODEL
    assert point.metrics["p99_e2el_ms"] == 2500.0
    (point,) = read_results(written(tmp_path, {**SGLANG, "backend": "vllm"}))
    assert (point.tool, point.server) == ("SGLang bench_serving", None)


@pytest.mark.parametrize(
    ("more", "tool", "server"),
    [
        ({"backend": "tensorrt-llm"}, "vllm bench serve", "TensorRT-LLM"),
        ({"backend": "sglang"}, "vllm bench serve", "SGLang"),
        ({"backend": "llama.cpp"}, "vllm bench serve", "llama.cpp"),
        ({"backend": "openai-chat"}, "vllm bench serve", None),
        ({"backend": "rigel"}, "vllm bench serve", "rigel"),
        ({"user_throughput": 21.0}, "TensorRT-LLM benchmark_serving", "TensorRT-LLM"),
    ],
)
def test_the_tool_and_the_server_are_named(
    tmp_path: Path, more: dict[str, Any], tool: str, server: str | None
) -> None:
    (point,) = read_results(written(tmp_path, {**RESULT, **more}))
    assert (point.tool, point.server) == (tool, server)


def test_a_report_of_trtllm_bench_is_called_so(tmp_path: Path) -> None:
    report = {"engine": {"model": "m"}, "request_info": {}, "performance": {}}
    with pytest.raises(UsageError, match="a report of trtllm-bench, which measures TensorRT-LLM"):
        read_results(written(tmp_path, report))


@pytest.mark.parametrize(
    ("more", "rate", "arrivals"),
    [
        ({"request_rate": 4.0}, 4.0, None),
        ({"request_rate": 4.0, "burstiness": 0.3}, 4.0, "bursty arrivals (gamma, burstiness 0.3)"),
        ({"request_rate": 4.0, "burstiness": 3}, 4.0, "even arrivals (gamma, burstiness 3)"),
        ({"request_rate": "inf", "burstiness": 0.3}, None, None),
        (
            {"ramp_up_strategy": "linear", "ramp_up_start_rps": 1, "ramp_up_end_rps": 9},
            None,
            "ramped (linear) from 1 to 9 requests/s",
        ),
    ],
)
def test_arrivals_that_are_no_constant_rate(
    tmp_path: Path, more: dict[str, Any], rate: float | None, arrivals: str | None
) -> None:
    (point,) = read_results(written(tmp_path, {**RESULT, **more}))
    assert (point.request_rate, point.arrivals) == (rate, arrivals)
    held_back = rate is not None or arrivals is not None  # at most 16 under way
    assert ("p99_ttft_ms" in point.metrics) is not held_back


def sweep(folder: Path) -> list[dict[str, Any]]:
    """What `vllm bench sweep serve` leaves of two values with two runs each."""
    summary = []
    for seqs in (64, 512):
        place = folder / "20260301_220000" / f"SERVE--max_num_seqs={seqs}-BENCH--"
        place.mkdir(parents=True)
        runs = [
            {**RESULT, "p99_tpot_ms": seqs + run, "max_num_seqs": seqs, "run_number": run}
            for run in (0, 1)
        ]
        for run in runs:
            (place / f"run={run['run_number']}.json").write_text(json.dumps(run))
        (place / "summary.json").write_text(json.dumps(runs))
        summary += runs
    return summary


def test_the_folder_of_a_sweep_holds_each_run_once(tmp_path: Path) -> None:
    sweep(tmp_path)
    points = read_results(tmp_path)
    assert [point.metrics["p99_tpot_ms"] for point in points] == [512.0, 513.0, 64.0, 65.0]
    assert points[0].file_name == "20260301_220000/SERVE--max_num_seqs=512-BENCH--/run=0.json"


@pytest.mark.parametrize("name", ["summary.json", "summary.csv"])
def test_the_summary_of_a_sweep_names_what_was_varied(tmp_path: Path, name: str) -> None:
    rows = sweep(tmp_path)
    path = tmp_path / name
    with path.open("w", newline="") as file:
        if name == "summary.json":
            json.dump(rows, file, indent=1)
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    points = read_results(path)
    assert [point.metrics["p99_tpot_ms"] for point in points] == [64.0, 65.0, 512.0, 513.0]
    assert len({point.sha256 for point in points}) == 4
    assert points[3].file_name == f"{name} 4 (max_num_seqs=512, run_number=1)"
    assert (points[3].completed, points[3].concurrency) == (198, 16)


@cases()
@given(
    more=st.dictionaries(
        st.sampled_from([*RESULT, *SGLANG, "ramp_up_strategy", "engine", "performance", "x"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers()),
        max_size=6,
    ),
    form=st.sampled_from(["object", "lines", "list", "csv"]),
)
def test_any_result_is_a_point_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, more: dict[str, Any], form: str
) -> None:
    row = {**RESULT, **more}
    path = tmp_path_factory.getbasetemp() / ("any.csv" if form == "csv" else "any.json")
    text = json.dumps(row)
    if form == "csv":
        path.write_text(",".join(row) + "\n" + ",".join(json.dumps(v) for v in row.values()))
    else:
        path.write_text({"object": text, "lines": f"{text}\n{text}", "list": f"[{text}]"}[form])
    with one_sentence_at_most():
        for point in read_results(path):
            assert point.tool and point.metrics
            assert all(math.isfinite(value) and value > 0 for value in point.metrics.values())
