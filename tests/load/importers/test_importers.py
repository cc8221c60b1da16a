from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.load.importers.importers import IMPORTERS, importer_named
from tuner.load.traces.trace_file import TraceRow, read_trace
from tuner.records import Message

Write = Callable[[str | bytes], Path]

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
MOONCAKE = '{"timestamp": %s, "input_length": %s, "output_length": %s, "hash_ids": %s}\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(content: str | bytes) -> Path:
        path = tmp_path / "source"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def rows(form: str, path: Path) -> list[TraceRow]:
    return list(IMPORTERS[form](path))


def refused(form: str, path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        rows(form, path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_azure_with_a_mark_crlf_empty_lines_and_quotes(write: Write) -> None:
    source = (
        b"\xef\xbb\xbfTIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        b"2023-11-16 18:15:46.6805900,374,44\r\n\r\n"
        b'"2023-11-16 18:15:50.6805900","396", 109 \r\n'
        b"2023-11-16 18:15:50.6805900,879,55"
    )
    assert rows("azure", write(source)) == [
        TraceRow(0.0, 44, prompt_tokens=374),
        TraceRow(4.0, 109, prompt_tokens=396),
        TraceRow(4.0, 55, prompt_tokens=879),
    ]


def test_azure_columns_go_by_their_names_and_times_may_have_zones(write: Write) -> None:
    source = (
        "GeneratedTokens,extra,timestamp,ContextTokens\n"
        "5,x,2024-05-10 00:00:00.5+00:00,7\n"
        "6,y,2024-05-10T02:00:01+02:00,8\n"
    )
    assert rows("azure", write(source)) == [
        TraceRow(0.0, 5, prompt_tokens=7),
        TraceRow(0.5, 6, prompt_tokens=8),
    ]


def test_a_packed_source_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "source.csv.gz"
    path.write_bytes(gzip.compress(f"{AZURE}2023-11-16 18:15:46,3,4\n".encode()))
    assert rows("azure", path) == [TraceRow(0.0, 4, prompt_tokens=3)]
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot read" in refused("azure", path)


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("", 1, "expected the columns TIMESTAMP, ContextTokens, GeneratedTokens"),
        ("a,b\n1,2\n", 1, "expected the columns"),
        (AZURE + "2023-11-16 18:15:46,3\n", 2, "expected 3 columns"),
        (AZURE + "\n2023-11-16 18:15:46,-3,1\n", 3, "ContextTokens must be a whole number"),
        (AZURE + "2023-11-16 18:15:46,3,0\n", 2, "GeneratedTokens must be a whole number from 1"),
        (AZURE + "2023-11-16 18:15:46,3,1.5\n", 2, "found '1.5'"),
        (AZURE + "2023-11-16 18:15:46,3,nan\n", 2, "found 'nan'"),
        (AZURE + "2023-11-16 18:15:46,3,²\n", 2, "GeneratedTokens"),
        (AZURE + "2023-11-16 18:15:46," + "9" * 5000 + ",1\n", 2, "ContextTokens"),
        (AZURE + "2023-11-16 18:15:46,9999999,1\n", 2, "from 1 to 1048576, found 9999999"),
        (AZURE + "yesterday,3,1\n", 2, "TIMESTAMP must look like"),
        (AZURE + "0001-01-01T00:00:00+23:00,3,1\n2023-11-16 18:15:46,,1\n", 3, "ContextTokens"),
        (AZURE + '2023-11-16 18:15:46,"3,1\n', 2, "not CSV"),
        (AZURE + "2023-11-16 18:15:46,3,1\n2023-11-16 18:15:45,3,1\n", 3, "earlier than the row"),
        (AZURE.encode() + b"2023-11-16 18:15:46,3,\xff\n", 2, "not UTF-8"),
        (AZURE + "__import__('os').system('true'),3,1\n", 2, "TIMESTAMP"),
    ],
)
def test_a_malformed_azure_row_names_its_line(
    write: Write, source: str | bytes, line: int, says: str
) -> None:
    message = refused("azure", write(source))
    assert f"line {line}: " in message
    assert says in message


def test_mooncake(write: Write) -> None:
    source = MOONCAKE % (27482, 1000, 52, [46, 47]) + MOONCAKE % (30535.5, 1030, 26, [])
    assert rows("mooncake", write(source)) == [
        TraceRow(0.0, 52, prompt_tokens=1000, hash_ids=(46, 47)),
        TraceRow(3.0535, 26, prompt_tokens=1030),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (MOONCAKE % ("NaN", 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("Infinity", 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("1e999", 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % (-1, 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("true", 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("9" * 400, 1, 1, []), "timestamp must be a time"),
        (MOONCAKE % ("9" * 5000, 1, 1, []), "not JSON"),
        (MOONCAKE % (0, 0, 1, []), "input_length must be a whole number from 1"),
        (MOONCAKE % (0, 1, -1, []), "output_length must be a whole number from 1"),
        (MOONCAKE % (0, 1, 1.5, []), "output_length must be a whole number"),
        (MOONCAKE % (0, 1, "NaN", []), "output_length must be a whole number"),
        (MOONCAKE % (0, 1, 1, "null"), "hash_ids must be a list"),
        (MOONCAKE % (0, 1, 1, '["a"]'), "hash_ids must be a whole number"),
        (MOONCAKE % (0, 1, 1, [-1]), "hash_ids must be a whole number"),
        (MOONCAKE % (0, 512, 1, [1, 2]), "2 hash_ids of 512 tokens are more than"),
        ("[1]\n", "expected a JSON object, found [1]"),
        ("{}\n", "timestamp must be a time"),
        ("{oops\n", "not JSON"),
        ("[" * 100_000 + "\n", "nested too deeply"),
        ("x" * (17 * 2**20) + "\n", "longer than"),
        (MOONCAKE % (0, 1, 1, []), "earlier than the row before"),
    ],
)
def test_a_malformed_mooncake_row_names_its_line(write: Write, line: str, says: str) -> None:
    good = "\n" + MOONCAKE % (5, 512, 1, [1]) + "\r\n"
    message = refused("mooncake", write(good + line))
    assert "line 4: " in message
    assert says in message


def said(*turns: tuple[str, str]) -> dict[str, object]:
    return {"id": "x", "conversations": [{"from": who, "value": what} for who, what in turns]}


def test_sharegpt_asks_once_for_each_answer(write: Write) -> None:
    conversations = [
        said(
            ("system", "Be brief."),
            ("human", "hello 🙂"),
            ("gpt", "x" * 41),
            ("human", "more"),
            ("gpt", ""),
        ),
        said(("gpt", "an answer to nothing"), ("human", "a question without an answer")),
        said(),
    ]
    start = (Message("system", "Be brief."), Message("user", "hello 🙂"))
    more = (*start, Message("assistant", "x" * 41), Message("user", "more"))
    for indent in (None, 2):
        source = json.dumps(conversations, indent=indent)
        assert rows("sharegpt", write(source)) == [
            TraceRow(None, 11, prompt=start),
            TraceRow(None, 1, prompt=more),
        ]


@pytest.mark.parametrize(
    ("source", "line", "says"),
    [
        ("", 1, "expected a JSON array"),
        ("{}", 1, "expected a JSON array ([ ... ]), found '{'"),
        ("[\n1]", 2, "expected an object with a list 'conversations', found 1"),
        ('[\n\n{"conversations": 3}]', 3, "list 'conversations'"),
        ('[{"conversations": [3]}]', 1, "a turn must hold 'from' and 'value'"),
        ('[{"conversations": [{"from": "dog", "value": "x"}]}]', 1, "found 'dog'"),
        ('[{"conversations": [{"from": [], "value": "x"}]}]', 1, "found []"),
        ('[{"conversations": [{"from": "gpt", "value": 1}]}]', 1, "'value' must be a text"),
        ('[{"conversations": []}\n{"conversations": []}]', 2, "expected a comma or ]"),
        ('[{"conversations": []},\n]', 2, "not JSON"),
        ('[{"conversations": []}', 1, "expected a comma or ], found ''"),
        ('[{"conversations": []}]\n7', 2, "expected the end of the file"),
        ('[{"conversations": [{"from": "human", "val', 1, "not JSON"),
        ("[" * 100_000, 1, "nested too deeply"),
        ("[" + "9" * 5000 + "]", 1, "not JSON"),
        (b'["\xff"]', 1, "not UTF-8"),
    ],
)
def test_malformed_sharegpt_names_its_line(
    write: Write, source: str | bytes, line: int, says: str
) -> None:
    message = refused("sharegpt", write(source))
    assert f"line {line}: " in message
    assert says in message


def test_an_item_of_sharegpt_cannot_fill_the_memory(write: Write) -> None:
    message = refused("sharegpt", write('[1, "' + "x" * (40 * 2**20)))
    assert "line 1" in message


def test_jsonl_with_texts_and_messages(write: Write) -> None:
    source = (
        '{"prompt": "hello", "output_tokens": 5, "id": 3}\n'
        '{"messages": [{"role": "user", "content": "h\\u00e9\\ud800", "name": "x"}],'
        ' "max_tokens": 6}\n'
    )
    assert rows("jsonl", write(source)) == [
        TraceRow(None, 5, prompt="hello"),
        TraceRow(None, 6, prompt=(Message("user", "hé\ufffd"),)),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"output_tokens": 5}', "either 'prompt' or 'messages'"),
        ('{"prompt": "x", "messages": [], "output_tokens": 5}', "either 'prompt' or 'messages'"),
        ('{"prompt": "x"}', "output_tokens (or max_tokens) is missing"),
        ('{"prompt": "", "output_tokens": 5}', "prompt must be a text that is not empty"),
        ('{"prompt": 7, "output_tokens": 5}', "prompt must be a text"),
        ('{"messages": [], "output_tokens": 5}', "messages must be a list of messages"),
        ('{"messages": [3], "output_tokens": 5}', "a message must hold role and content"),
        ('{"messages": [{"role": "user"}], "output_tokens": 5}', "content must be a text"),
        ('{"prompt": "x", "output_tokens": 0}', "output_tokens must be a whole number"),
        ('{"prompt": "x", "max_tokens": null}', "max_tokens must be a whole number"),
        ('"x"', "expected a JSON object"),
    ],
)
def test_a_malformed_text_row_names_its_line(write: Write, line: str, says: str) -> None:
    message = refused("jsonl", write('{"prompt": "x", "output_tokens": 5}\n' + line))
    assert "line 2: " in message
    assert says in message


@pytest.mark.parametrize("form", sorted(IMPORTERS))
def test_a_source_that_is_not_there_is_named(form: str, tmp_path: Path) -> None:
    assert "No such file" in refused(form, tmp_path / "none.csv")
    assert "Is a directory" in refused(form, tmp_path)


def test_an_unknown_format_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match="allowed: azure, jsonl, mooncake, sharegpt"):
        importer_named("csv")


FIELDS = (
    *("timestamp", "input_length", "output_length", "hash_ids", "prompt", "messages"),
    *("output_tokens", "max_tokens", "role", "content", "from", "value"),
    *("conversations", "arrival_s", "prompt_tokens"),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
lines = st.one_of(
    values.map(json.dumps),
    st.text(max_size=30),
    st.lists(
        st.one_of(
            st.integers().map(str),
            st.floats().map(str),
            st.datetimes().map(str),
            st.text('"\r,\0x', max_size=4),
        ),
        min_size=2,
        max_size=4,
    ).map(",".join),
)
files = st.one_of(
    st.binary(max_size=80),
    st.lists(lines, max_size=4).map("\n".join).map(lambda t: t.encode("utf-8", "replace")),
    st.lists(lines, max_size=4).map(
        lambda ls: (AZURE + "\r\n".join(ls)).encode("utf-8", "replace")
    ),
    st.lists(values, max_size=3).map(lambda v: json.dumps(v).encode()),
)


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(form=st.sampled_from(sorted([*IMPORTERS, "own"])), content=files)
@example(form="own", content=b'{"arrival_s":1,"prompt_tokens":1,"output_tokens":1}\n{"prompt":"x"}')
def test_no_file_however_odd_gives_anything_but_rows_or_a_usage_error(
    write: Write, form: str, content: bytes
) -> None:
    path = write(content)
    read = read_trace if form == "own" else IMPORTERS[form]
    try:
        found = list(read(path))
    except UsageError as error:
        assert str(path) in str(error)
        return
    for row in found:
        assert row.output_tokens >= 1
        assert (row.prompt is None) != (row.prompt_tokens is None)
        assert row.arrival_s is None or 0 <= row.arrival_s < float("inf")
