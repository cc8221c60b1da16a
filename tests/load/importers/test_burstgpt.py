"""BurstGPT's CSV: columns by name, seconds from the start, and requests that failed."""

from __future__ import annotations

import pytest
from helpers.trace_samples import Write, refused, rows

from tuner.load.traces.trace_file import TraceRow

HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def test_the_models_are_one_load(write: Write) -> None:
    source = f"{HEADER}5,ChatGPT,472,18,490,Conversation log\n45.5,GPT-4,1087,230,1317,API log\n"
    assert rows("burstgpt", write(source)) == [
        TraceRow(0.0, 18, prompt_tokens=472),
        TraceRow(40.5, 230, prompt_tokens=1087),
    ]


def test_later_files_have_more_columns(write: Write) -> None:
    source = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
        "Log Type\n5.0,17,3.2,GPT-4,472,18,490,Conversation log\n"
    )
    assert rows("burstgpt", write(source)) == [TraceRow(0.0, 18, prompt_tokens=472)]


def test_a_request_that_failed_is_refused_and_the_file_without_them_named(write: Write) -> None:
    message = refused("burstgpt", write(HEADER + "5,ChatGPT,472,0,472,Conversation log\n"))
    assert "line 2: a request that failed" in message
    assert "BurstGPT_without_fails_1.csv" in message


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("x,ChatGPT,472,18,490,API log", "Timestamp must be seconds from the start"),
        ("nan,ChatGPT,472,18,490,API log", "Timestamp must be a time of at least 0"),
        ("inf,ChatGPT,472,18,490,API log", "Timestamp must be a time of at least 0"),
        ("-1,ChatGPT,472,18,490,API log", "Timestamp must be a time of at least 0"),
        ("5,ChatGPT,0,18,18,API log", "Request tokens must be a whole number from 1"),
        ("5,ChatGPT,472,00,490,API log", "Response tokens must be a whole number from 1"),
        ("5,ChatGPT,472,1.5,490,API log", "Response tokens must be a whole number"),
        ("5,ChatGPT,472", "expected 4 columns or more"),
        ("4,ChatGPT,472,18,490,API log", "earlier than the row before"),
    ],
)
def test_a_malformed_row_names_its_line(write: Write, row: str, says: str) -> None:
    message = refused("burstgpt", write(f"{HEADER}4.5,ChatGPT,1,1,2,API log\n{row}\n"))
    assert "line 3: " in message
    assert says in message
