from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.load.traces.trace_file import TraceRow, read_trace, write_trace
from tuner.load.workload import Workload, WorkloadSpec, load_workload
from tuner.records import Message, Request, TextRequest

Make = Callable[..., Workload]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    numbers = count()

    def workload(rows: Sequence[TraceRow], block: int = 8, **changes: Any) -> Workload:
        file = f"{next(numbers)}.jsonl.gz"
        with (tmp_path / file).open("wb") as new:
            write_trace(new, rows)
        fields = {
            "description": "for a test",
            "trace": {"file": file, "block_tokens": block},
            "load": {"concurrency": 2},
            **changes,
        }
        return Workload("trace", WorkloadSpec.model_validate(fields), tmp_path)

    return workload


def take(workload: Workload, count: int) -> list[Request]:
    return list(islice(workload.requests(), count))


def common(one: Request, other: Request) -> int:
    """How many leading tokens two prompts share."""
    a, b = one.prompt_token_ids, other.prompt_token_ids
    shortest = min(len(a), len(b))
    differ = np.nonzero(a[:shortest] != b[:shortest])[0]
    return int(differ[0]) if differ.size else shortest


@st.composite
def token_rows(draw: st.DrawFn) -> list[TraceRow]:
    """Rows whose hash ids chain, as those of prefixes do: an id stands for all before it."""
    chains = draw(st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=6))
    known: dict[tuple[int, ...], int] = {}
    rows = []
    for chain in chains:
        ids = [known.setdefault(tuple(chain[: i + 1]), len(known)) for i in range(len(chain))]
        own = draw(st.integers(5, 20))
        rows.append(TraceRow(None, draw(st.integers(1, 9)), 8 * len(ids) + own, None, tuple(ids)))
    return rows


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(token_rows(), st.integers(0, 2**40), st.sampled_from([512, 32000]))
def test_prompts_share_the_blocks_of_the_same_ids_and_nothing_else(
    make: Make, rows: list[TraceRow], seed: int, vocab_size: int
) -> None:
    workload = make(rows, seed=seed, vocab_size=vocab_size)
    copies = 3
    requests = take(workload, copies * len(rows))
    assert [r.request_id for r in requests] == list(range(len(requests)))
    for i, one in enumerate(requests):
        row = rows[i % len(rows)]
        assert len(one.prompt_token_ids) == row.prompt_tokens
        assert one.output_tokens == row.output_tokens
        assert 256 <= one.prompt_token_ids.min() <= one.prompt_token_ids.max() < vocab_size
        assert len(one.prompt_token_ids) + one.output_tokens <= workload.max_request_tokens
        for j in range(i):
            same_copy = i // len(rows) == j // len(rows)
            ids = zip(row.hash_ids, rows[j % len(rows)].hash_ids, strict=False)
            blocks = sum(a == b for a, b in ids) if same_copy else 0
            assert common(one, requests[j]) == 8 * blocks


def test_the_stream_is_the_same_again_and_elsewhere(make: Make) -> None:
    rows = [TraceRow(None, 3, 20, None, (1, 2)), TraceRow(None, 4, 30)]
    one, other = make(rows), make(rows)
    assert one.sha256 == other.sha256
    for a, b in zip(take(one, 9), take(other, 9), strict=True):
        assert (a.prompt_token_ids == b.prompt_token_ids).all()
        assert a.arrival_s == b.arrival_s
    assert make(rows, seed=1).sha256 != one.sha256
    assert make([*rows, rows[0]]).sha256 != one.sha256
    # The same as far as the first 64 requests are.
    many = rows * 40
    assert make(many).sha256 != make([*many, TraceRow(None, 5, 30)]).sha256


def test_the_shortest_prompts_are_lengthened_to_tell_them_apart(make: Make) -> None:
    requests = take(make([TraceRow(None, 1, 1)], vocab_size=512), 500)
    assert {len(r.prompt_token_ids) for r in requests} == {4}
    assert len({r.prompt_token_ids.tobytes() for r in requests}) == 500


def test_its_own_times_are_scaled_and_go_on_in_the_next_copy(make: Make) -> None:
    rows = [TraceRow(t, 1, 9) for t in (100.0, 100.0, 104.0, 130.0)]
    workload = make(rows, load={"request_rate": 0.1, "arrivals": "trace"})
    times_s = [r.arrival_s for r in take(workload, 400)]
    assert times_s[:5] == [0.0, 0.0, 0.4, 3.0, 4.0]
    assert all(a <= b for a, b in pairwise(times_s))
    assert times_s[-1] / 400 == pytest.approx(1.0, rel=0.01)


def test_other_arrivals_may_be_asked_for(make: Make) -> None:
    rows = [TraceRow(t, 1, 9) for t in (100.0, 130.0)]
    constant = make(rows, load={"request_rate": 1, "arrivals": "constant"})
    assert [r.arrival_s for r in take(constant, 3)] == [1.0, 2.0, 3.0]
    poisson = [r.arrival_s for r in take(make(rows), 4000)]
    assert np.diff(poisson).std() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("rows", [[TraceRow(None, 1, 9)] * 2, [TraceRow(7.0, 1, 9)] * 2])
def test_a_trace_without_times_cannot_be_replayed(make: Make, rows: list[TraceRow]) -> None:
    with pytest.raises(UsageError, match="no arrival times that could be replayed"):
        make(rows, load={"request_rate": 1, "arrivals": "trace"})


def test_texts_are_fresh_in_each_copy(make: Make) -> None:
    talk = (Message("system", "Be brief."), Message("user", "hello"))
    workload = make([TraceRow(None, 3, prompt="x" * 10), TraceRow(None, 4, prompt=talk)])
    requests = take(workload, 5)
    assert all(isinstance(r, TextRequest) for r in requests)
    assert [r.prompt for r in requests] == [
        "x" * 10,
        talk,
        "(1) " + "x" * 10,
        (Message("system", "(1) Be brief."), talk[1]),
        "(2) " + "x" * 10,
    ]
    assert [len(r.prompt_token_ids) for r in requests] == [3, 5, 4, 6, 4]
    assert [r.output_tokens for r in requests] == [3, 4, 3, 4, 3]


def test_a_text_changes_the_hash(make: Make) -> None:
    one, other = (make([TraceRow(None, 3, prompt=text)]) for text in ("abc", "abd"))
    assert one.sha256 != other.sha256


printable = st.text(min_size=1, max_size=20).map(
    lambda t: t.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
)
any_rows = st.lists(
    st.one_of(
        st.builds(
            TraceRow,
            st.none(),
            st.integers(1, 2**20),
            prompt_tokens=st.integers(1, 2**20),
            hash_ids=st.lists(st.integers(0, 2**62), max_size=3).map(tuple),
        ),
        st.builds(TraceRow, st.none(), st.integers(1, 2**20), prompt=printable),
        st.builds(
            TraceRow,
            st.none(),
            st.integers(1, 2**20),
            prompt=st.lists(st.builds(Message, printable, printable), min_size=1).map(tuple),
        ),
    )
)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(any_rows, st.booleans())
def test_what_is_written_is_read_back(tmp_path: Path, rows: list[TraceRow], timed: bool) -> None:
    if timed:
        rows = [
            TraceRow(i / 7, r.output_tokens, r.prompt_tokens, r.prompt, r.hash_ids)
            for i, r in enumerate(rows)
        ]
    path = tmp_path / "rows.jsonl.gz"
    with path.open("wb") as file:
        assert write_trace(file, rows) == len(rows)
    assert list(read_trace(path)) == rows
    again = BytesIO()
    write_trace(again, rows)
    assert path.read_bytes() == again.getvalue()
    assert write_trace(BytesIO(), rows, limit=1) == min(1, len(rows))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no requests"),
        ('{"prompt_tokens": 3, "output_tokens": 1, "more": 1}', "line 1: there is no field 'more'"),
        ('{"output_tokens": 1}', "line 1: write one of prompt_tokens, prompt and messages"),
        ('{"prompt": "x", "output_tokens": 1, "hash_ids": []}', "hash_ids belong to prompt_tokens"),
        ('{"prompt_tokens": 3, "output_tokens": 0}', "line 1: output_tokens must be"),
        (
            '{"arrival_s": 2, "prompt_tokens": 3, "output_tokens": 1}\n'
            '{"arrival_s": 1, "prompt_tokens": 3, "output_tokens": 1}',
            "line 2: arrival_s 1 is before",
        ),
        (
            '{"prompt_tokens": 3, "output_tokens": 1}\n'
            '{"arrival_s": 1, "prompt_tokens": 3, "output_tokens": 1}',
            "line 2: arrival_s must stand in every line or in none",
        ),
        (
            '{"prompt_tokens": 512, "output_tokens": 1, "hash_ids": [1, 2]}',
            "request 1: 2 hash ids for 512 tokens",
        ),
        ('{"prompt_tokens": 3, "output_tokens": 1, "arrival_s": NaN}', "arrival_s must be a time"),
    ],
)
def test_a_trace_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.jsonl").write_text(text)
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("{description: x, trace: {file: mine.jsonl}, load: {concurrency: 1}}")
    with pytest.raises(UsageError) as caught:
        load_workload(str(yaml))
    assert "mine.jsonl" in str(caught.value)
    assert says in str(caught.value)


def test_a_trace_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("{description: x, trace: {file: none.jsonl.gz}, load: {concurrency: 1}}")
    with pytest.raises(UsageError, match=r"cannot read .*none.jsonl.gz"):
        load_workload(str(yaml))
