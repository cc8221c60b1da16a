from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from helpers.records import raw_run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.plain_text import plain_text
from tuner.records import (
    DraftCounts,
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
)
from tuner.store.raw import decode, encode

any_float = st.floats(allow_nan=True, allow_infinity=True)
columns = hnp.arrays(np.float64, st.integers(0, 20), elements=any_float)
counts = st.integers(0, 2**40)
requests = st.builds(
    RequestRecord,
    request_id=st.integers(-(2**63), 2**63 - 1),
    prompt_tokens=counts,
    output_tokens=counts,
    scheduled_s=any_float,
    sent_s=any_float,
    token_times_s=columns,
    ended_s=any_float,
    state=st.sampled_from(RequestState),
    error=st.none() | st.text().map(plain_text),
)
runs = st.builds(
    RawRun,
    requests=st.lists(requests, max_size=6).map(tuple),
    power=st.builds(
        PowerTimeline, columns, columns, columns, st.sampled_from(Source), st.none() | columns
    ),
    server=st.builds(ServerTimeline, columns, columns, columns),
    window_start_s=any_float,
    window_end_s=any_float,
    latency_source=st.sampled_from(Source),
)


def bits(value: object) -> object:
    """Everything in a run, floats as their bit patterns, so that NaN and -0.0 count too."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.tobytes())
    if isinstance(value, float):
        return (float, np.float64(value).tobytes() if value == value else "nan")
    if isinstance(value, tuple):
        return tuple(bits(v) for v in value)
    if hasattr(value, "__dataclass_fields__"):
        return tuple((name, bits(getattr(value, name))) for name in value.__dataclass_fields__)
    return (type(value), value)


def test_the_comparison_sees_one_bit() -> None:
    one = np.array([1.0, 2.0])
    assert bits(one) != bits(np.nextafter(one, 3.0))
    assert bits(0.0) != bits(-0.0)


@settings(max_examples=60, deadline=None)
@given(runs)
def test_decode_gives_back_exactly_what_was_encoded(run: RawRun) -> None:
    assert bits(decode(encode(run))) == bits(run)


def typical_run() -> RawRun:
    rng = np.random.default_rng(3)
    starts = np.sort(rng.uniform(1000.0, 1200.0, 300))
    made = tuple(
        RequestRecord(
            request_id=i,
            prompt_tokens=128,
            output_tokens=200,
            scheduled_s=start,
            sent_s=start,
            token_times_s=start + 0.1 + np.cumsum(rng.gamma(50.0, 0.0004, 200)),
            ended_s=start + 5.0,
            state=RequestState.DONE,
        )
        for i, start in enumerate(starts.tolist())
    )
    times = np.arange(1000.0, 1200.0, 0.05)
    power = PowerTimeline(times, np.full_like(times, 400.0), 400.0 * times, Source.MEASURED)
    server = ServerTimeline(times, np.full_like(times, 32.0), np.zeros_like(times))
    return RawRun(made, power, server, 1010.0, 1190.0, Source.MEASURED)


def test_a_typical_run_shrinks_to_under_80_percent() -> None:
    run = typical_run()
    plain = 8 * (sum(len(r.token_times_s) for r in run.requests) + 6 * len(run.power.times_s))
    assert len(encode(run)) < 0.8 * plain


BEFORE_CLOCKS = (
    "AXicfZA9TgMxEIXNj0RLwQFWrqMooaTZ3GMVmZU9Cobd8TK2saIoJffgKBwpJQUFzjpZ1gphmtH35s3Yeu8XjG24NI1v0fKHoqo4"
    "wasH64RWfFLMl5Oi4h2ZtnPCmReIrqNqvOv8iWpd7WCgfiik8eh+HfIJlG9AidEWoBshoMrG6YzTLdhevU/fMgHojBoGBgRarcXz"
    "IFigtz/2yCNqXA0cau2OHAUORIb2GW22kdIr1niSEDXeQm09wT4z3sQEUK7PTINGZYLo055PZ/H8dLbc3rBUV4d+yfLKeVem/nXo"
    "bDGefl+Xuft2zJ8flNsf78TiH/8psx0rfwBoTohc"
)


def test_records_from_before_clocks_were_kept_are_read() -> None:
    run = decode(base64.b64decode(BEFORE_CLOCKS))
    assert run.power.sm_clock_mhz is None
    assert run.power.power_w.tolist() == [300.0, 310.0]
    assert run.server.waiting.tolist() == [0.0, 1.0]


def test_a_newer_format_is_refused_with_what_to_do() -> None:
    with pytest.raises(PreflightError, match="upgrade"):
        decode(b"\x02" + encode(typical_run())[1:])


@pytest.mark.parametrize("keep", [1, 100, -1])
def test_cut_bytes_are_said_to_be_damaged(keep: int) -> None:
    with pytest.raises(OperatorNeededError, match="damaged"):
        decode(encode(typical_run())[:keep])


def test_valid_zlib_with_wrong_content_is_said_to_be_damaged() -> None:
    with pytest.raises(OperatorNeededError, match="damaged"):
        decode(b"\x01" + zlib.compress(b"\x02\x00\x00\x00{}"))


def test_counts_of_drafts_are_kept() -> None:
    times_s = np.array([0.0, 0.25])
    counts = DraftCounts(times_s + 1.0, times_s + 4.0, times_s + 2.0, (times_s, times_s + 0.5))
    server = ServerTimeline(times_s, times_s, times_s, counts)
    back = decode(encode(raw_run(server=server))).server.drafts
    assert back is not None
    assert back.drafts.tolist() == counts.drafts.tolist()
    assert back.drafted.tolist() == counts.drafted.tolist()
    assert back.accepted.tolist() == counts.accepted.tolist()
    assert [at.tolist() for at in back.accepted_at] == [at.tolist() for at in counts.accepted_at]
