"""The formulas, against hand-made records and against the laws they must keep."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.measurement.drafts import acceptance
from tuner.measurement.reduce import reduce_run, short_window, window_energy_j
from tuner.measurement.requests.latencies import e2el_ms, token_gaps_ms, tpot_ms, ttft_ms
from tuner.records import (
    DraftCounts,
    Failure,
    FailureKind,
    Measurement,
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
)


def record(
    request_id: int,
    scheduled_s: float,
    token_times_s: list[float],
    state: RequestState = RequestState.DONE,
    error: str | None = None,
) -> RequestRecord:
    times_s = np.array(token_times_s, dtype=np.float64)
    return RequestRecord(
        request_id=request_id,
        prompt_tokens=5,
        output_tokens=max(len(token_times_s), 1),
        scheduled_s=scheduled_s,
        sent_s=scheduled_s + 0.001,
        token_times_s=times_s,
        ended_s=float(times_s[-1]) if times_s.size else scheduled_s + 1,
        state=state,
        error=error,
    )


def run(
    records: list[RequestRecord], *, watts: float = 100.0, window: tuple[float, float] = (10, 20)
) -> RawRun:
    times_s = np.arange(0.0, 30.01, 0.1)
    return RawRun(
        requests=tuple(records),
        power=PowerTimeline(
            times_s, np.full_like(times_s, watts), times_s * watts, Source.MEASURED
        ),
        server=ServerTimeline(np.array([0.0]), np.array([1.0]), np.array([0.0])),
        window_start_s=10.0,
        window_end_s=20.0,
        latency_source=Source.MEASURED,
    )


def measured(result: Measurement | Failure) -> Measurement:
    assert isinstance(result, Measurement), result
    return result


def test_tokens_count_by_arrival_and_energy_by_the_same_window() -> None:
    cut_by_start = record(0, 8.0, [9.0, 9.5, 10.5, 11.0])  # two of four inside
    inside = record(1, 11.0, [12.0, 13.0])
    cut_by_end = record(2, 18.0, [19.0, 21.0], RequestState.CUT)  # one of two inside
    metrics = measured(reduce_run(run([cut_by_start, inside, cut_by_end]), {})).metrics
    assert metrics["output_throughput_tok_s"] == pytest.approx(5 / 10)
    assert metrics["request_throughput_req_s"] == pytest.approx(2 / 10)
    assert metrics["energy_per_output_token_j"] == pytest.approx(100 * 10 / 5)
    assert metrics["mean_power_w"] == pytest.approx(100)
    assert metrics["energy_per_request_j"] == pytest.approx(200 * 3)
    assert metrics["mean_ttft_ms"] == pytest.approx(1000)  # of the two first tokens inside
    assert metrics["mean_tpot_ms"] == pytest.approx((2000 / 3 + 1000) / 2)
    assert metrics["mean_itl_ms"] == pytest.approx((1000 + 500 + 1000) / 3)


def test_a_prompt_counts_whole_where_its_first_token_arrived() -> None:
    before = record(0, 8.0, [9.0, 9.5, 10.5, 11.0])
    inside = record(1, 11.0, [12.0, 13.0])
    cut_by_end = record(2, 18.0, [19.0, 21.0], RequestState.CUT)
    after = record(3, 19.0, [20.5, 21.0], RequestState.CUT)
    requests = [before, inside, cut_by_end, after]
    metrics = measured(reduce_run(run(requests), {})).metrics
    prompts = inside.prompt_tokens + cut_by_end.prompt_tokens
    assert metrics["energy_per_input_token_j"] == pytest.approx(100 * 10 / prompts)


def test_without_a_first_token_in_the_window_there_is_no_energy_per_input_token() -> None:
    metrics = measured(reduce_run(run([record(0, 8.0, [9.0, 10.5, 11.0])]), {})).metrics
    assert "energy_per_input_token_j" not in metrics
    assert metrics["energy_per_output_token_j"] == pytest.approx(100 * 10 / 2)


def test_one_failed_request_spoils_the_run() -> None:
    bad = record(1, 11.0, [12.0], RequestState.FAILED, "stream closed after 1 of 16 tokens")
    result = reduce_run(run([record(0, 11.0, [12.0, 13.0]), bad]), {})
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.UNSTABLE
    assert "1 of 2 requests failed" in result.reason
    assert "stream closed" in result.reason


def test_a_window_in_which_nothing_finished_is_no_measurement() -> None:
    result = reduce_run(run([record(0, 1.0, [2.0, 3.0])]), {})
    assert isinstance(result, Failure)
    assert "no request finished" in result.reason


def test_missing_power_samples_are_no_zero() -> None:
    raw = run([record(0, 11.0, [12.0, 13.0])])
    short = PowerTimeline(
        raw.power.times_s[:150], raw.power.power_w[:150], raw.power.energy_j[:150], Source.MEASURED
    )
    result = reduce_run(replace(raw, power=short), {})
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.INFRASTRUCTURE


def test_a_counter_that_stands_still_or_goes_back_is_no_measurement() -> None:
    raw = run([record(0, 11.0, [12.0, 13.0])])
    for energy_j in (np.zeros_like(raw.power.times_s), -raw.power.energy_j):
        power = replace(raw.power, energy_j=energy_j)
        assert isinstance(reduce_run(replace(raw, power=power), {}), Failure)


def test_one_token_answers_have_no_tpot() -> None:
    metrics = measured(reduce_run(run([record(0, 11.0, [12.0])]), {})).metrics
    assert "p99_tpot_ms" not in metrics
    assert "p99_itl_ms" not in metrics
    assert metrics["p99_ttft_ms"] == pytest.approx(1000)


def test_an_open_load_that_outgrows_the_server_is_no_measurement() -> None:
    def arrivals(rate: float, served: float) -> list[RequestRecord]:
        """First come, first served, one at a time."""
        records, free_s = [], 0.0
        for i in range(int(25 * rate)):
            scheduled_s = i / rate
            free_s = max(free_s, scheduled_s) + 1 / served
            times = [free_s - 0.5 / served, free_s]
            done = free_s <= 20.0
            times = [t for t in times if t <= 20.0]
            state = RequestState.DONE if done else RequestState.CUT
            records.append(record(i, scheduled_s, times, state))
        return records

    keeps_up = reduce_run(run(arrivals(rate=40, served=41)), {})
    assert isinstance(keeps_up, Measurement)
    behind = reduce_run(run(arrivals(rate=40, served=20)), {})
    assert isinstance(behind, Failure)
    assert behind.kind is FailureKind.CONFIGURATION
    assert "does not keep up" in behind.reason


def test_goodput_counts_requests_and_attainment_those_that_wait_too_long() -> None:
    good = record(0, 11.0, [11.1, 11.2])
    late = record(1, 11.0, [12.0, 12.1])
    waiting = record(2, 12.0, [], RequestState.CUT)
    fresh = record(3, 19.9, [], RequestState.CUT)
    metrics = measured(reduce_run(run([good, late, waiting, fresh]), {"ttft_ms": 500})).metrics
    assert metrics["goodput_req_s"] == pytest.approx(1 / 10)
    assert metrics["slo_attainment"] == pytest.approx(1 / 3)


def test_a_first_token_after_the_window_comes_too_late_all_the_same() -> None:
    """The load goes on until the end has been sampled, so that some requests get on."""
    done, late = record(0, 11.0, [11.1, 11.2]), record(1, 12.0, [20.1, 20.2])
    result = reduce_run(run([done, late]), {"ttft_ms": 500.0})
    assert isinstance(result, Measurement)
    assert result.metrics["slo_attainment"] == 0.5


@st.composite
def runs(draw: st.DrawFn) -> RawRun:
    records = []
    for i in range(draw(st.integers(1, 12))):
        scheduled_s = draw(st.floats(0, 24))
        gaps = draw(st.lists(st.floats(1e-4, 2.0), min_size=1, max_size=8))
        records.append(record(i, scheduled_s, list(scheduled_s + np.cumsum(gaps))))
    return run(records, watts=draw(st.floats(1, 1000)))


@given(runs())
def test_tpot_and_ttft_add_up_to_the_latency(raw: RawRun) -> None:
    for r in raw.requests:
        first, per_token, last = ttft_ms(r), tpot_ms(r), e2el_ms(r)
        assert first is not None and last is not None
        rest = 0.0 if per_token is None else per_token * (r.token_times_s.size - 1)
        assert first + rest == pytest.approx(last)


@given(runs(), st.floats(1.5, 10))
@settings(max_examples=50)
def test_scaling_energy_scales_only_energy(raw: RawRun, factor: float) -> None:
    power = raw.power
    scaled = replace(power, power_w=power.power_w * factor, energy_j=power.energy_j * factor)
    before, after = reduce_run(raw, {}), reduce_run(replace(raw, power=scaled), {})
    if isinstance(before, Failure):
        assert isinstance(after, Failure)
        return
    for name, value in measured(after).metrics.items():
        expected = before.metrics[name] * (factor if name.endswith(("_j", "_w")) else 1.0)
        assert value == pytest.approx(expected)


@given(
    runs(), st.dictionaries(st.sampled_from(["ttft_ms", "tpot_ms", "e2el_ms"]), st.floats(1, 5000))
)
def test_goodput_never_exceeds_throughput(raw: RawRun, limits: dict[str, float]) -> None:
    result = reduce_run(raw, limits)
    if isinstance(result, Measurement):
        assert result.metrics["goodput_req_s"] <= result.metrics["request_throughput_req_s"] + 1e-12
        assert 0.0 <= result.metrics["slo_attainment"] <= 1.0


@given(runs(), st.permutations(range(12)))
def test_the_order_of_records_does_not_matter(raw: RawRun, order: list[int]) -> None:
    shuffled = tuple(raw.requests[i] for i in order if i < len(raw.requests))
    before, after = reduce_run(raw, {}), reduce_run(replace(raw, requests=shuffled), {})
    if isinstance(before, Measurement):
        assert measured(after).metrics == pytest.approx(dict(before.metrics))


def test_window_energy_is_linear_between_samples() -> None:
    power = PowerTimeline(
        np.array([0.0, 1.0, 3.0]),
        np.array([1.0, 1.0, 1.0]),
        np.array([0.0, 10.0, 50.0]),
        Source.MEASURED,
    )
    assert window_energy_j(power, 0.5, 2.0) == pytest.approx(30 - 5)
    with pytest.raises(ValueError, match="cover"):
        window_energy_j(power, 0.5, 3.5)


def test_a_window_shorter_than_an_answer_is_refused_with_the_length_to_take() -> None:
    every_second = [2.0 + i for i in range(18)]
    slow = [record(i, 1.0, every_second) for i in range(4)]
    cut = [
        replace(r, output_tokens=40, state=RequestState.CUT, ended_s=19.0) for r in slow
    ]  # 1 s to the first token and 39 more
    result = reduce_run(run(cut), {})
    assert isinstance(result, Failure) and result.kind is FailureKind.CONFIGURATION
    assert "the window of 10 s is shorter than an answer, which takes 40 s" in result.reason
    assert "--window-s 160" in result.reason


def test_a_window_a_little_shorter_than_an_answer_is_told_of() -> None:
    slow = [record(i, 1.0, [2.0 + i for i in range(16)]) for i in range(4)]
    raw = run(slow)
    assert isinstance(reduce_run(raw, {}), Measurement)
    told = short_window(raw)
    assert told is not None and "which takes 16 s on average: take --window-s 70" in told
    assert short_window(run([record(0, 11.0, [12.0, 13.0])])) is None


def test_the_offered_rate_counts_what_was_scheduled_in_the_window() -> None:
    requests = [record(i, at_s, [at_s + 0.5, at_s + 1.0]) for i, at_s in enumerate((9.0, 11.0, 15))]
    waiting = replace(record(3, 19.5, []), state=RequestState.CUT, ended_s=20.0)
    metrics = measured(reduce_run(run([*requests, waiting]), {})).metrics
    assert metrics["offered_rate_req_s"] == pytest.approx(3 / 10)
    assert metrics["request_throughput_req_s"] == pytest.approx(2 / 10)


def test_tokens_that_arrive_together_share_the_gap_before_them() -> None:
    chunks = [1.0, 1.0, 4.0, 4.0, 4.0, 5.0]  # two with the first token, then three, then one
    other = [2.0, 2.5]
    requests = [record(0, 0.0, chunks), record(1, 0.0, other)]
    times_s, gaps_ms = token_gaps_ms(requests, 0.0, 9.0)
    assert times_s.tolist() == [4.0, 4.0, 4.0, 5.0, 2.5]
    assert gaps_ms.tolist() == pytest.approx([1e3, 1e3, 1e3, 1e3, 500.0])
    assert token_gaps_ms(requests, 4.5, 9.0)[1].tolist() == pytest.approx([1e3])
    assert token_gaps_ms([], 0.0, 9.0)[1].size == 0


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=40), st.integers(1, 5))
def test_chunks_keep_the_mean_gap(gaps_s: list[float], size: int) -> None:
    ends_s = np.cumsum([1.0, *gaps_s])
    single = record(0, 0.0, ends_s.tolist())
    chunked = record(0, 0.0, [1.0, *np.repeat(ends_s[1:], size)])
    plain, shared = (token_gaps_ms([r], 0.0, 1e6)[1] for r in (single, chunked))
    assert shared.sum() == pytest.approx(plain.sum())
    assert shared.size == size * plain.size


def test_acceptance_is_that_of_the_window() -> None:
    times_s = np.array([0.0, 10.0, 70.0, 80.0])
    counts = DraftCounts(
        drafts=np.array([0.0, 100.0, 200.0, 900.0]),
        drafted=np.array([0.0, 400.0, 800.0, 3600.0]),
        accepted=np.array([0.0, 390.0, 490.0, 3000.0]),
        accepted_at=(np.array([0.0, 95.0, 170.0, 900.0]), np.array([0.0, 90.0, 115.0, 700.0])),
    )
    none = np.zeros(4)
    server = ServerTimeline(times_s, none, none, counts)
    assert acceptance(server, 10.0, 70.0) == {
        "draft_acceptance_rate": pytest.approx(0.25),
        "mean_acceptance_length": pytest.approx(2.0),
        "draft_acceptance_rate_pos_0": pytest.approx(0.75),
        "draft_acceptance_rate_pos_1": pytest.approx(0.25),
    }
    assert acceptance(ServerTimeline(times_s, none, none), 10.0, 70.0) == {}
    still = DraftCounts(none, none, none)
    assert acceptance(ServerTimeline(times_s, none, none, still), 10.0, 70.0) == {}
