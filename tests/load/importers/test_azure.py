"""Azure's CSV: columns, times, and what is wrong with a row."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from helpers.trace_samples import Write, refused, rows

from tuner.load.importers.azure import IMPORTER
from tuner.load.importers.reading import Reading
from tuner.load.traces.trace_file import TraceRow

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


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


def test_requests_with_images_are_refused_or_left_out(write: Write) -> None:
    source = (
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        "2024-10-15T12:00:00.100Z,0,110,21\n"
        "2024-10-15T12:00:02.600Z,3,4400,22\n"
        "2024-10-15T12:00:03.100Z,0,120,23\n"
    )
    assert "line 3: NumImages is '3': a request that is more than text" in refused(
        "azure", write(source)
    )
    reading = Reading(skip_invalid=True)
    found = list(IMPORTER.rows(write(source), reading))
    assert [(row.arrival_s, row.prompt_tokens) for row in found] == [(0.0, 110), (3.0, 120)]
    (note,) = reading.notes()
    assert note.startswith("1 rows were left out (the first: line 3: NumImages")


def test_a_request_that_failed_is_left_out_if_asked(write: Write) -> None:
    source = f"{AZURE}2024-05-10 00:00:00,100,5\n2024-05-10 00:00:01,100,0\n"
    assert "line 3: GeneratedTokens must be" in refused("azure", write(source))
    assert len(list(IMPORTER.rows(write(source), Reading(skip_invalid=True)))) == 1


def test_columns_that_are_not_used_are_said(write: Write) -> None:
    reading = Reading()
    path = write("TIMESTAMP,ContextTokens,GeneratedTokens,Region\n2024-05-10 00:00:00,100,5,eu\n")
    assert len(list(IMPORTER.rows(path, reading))) == 1
    assert reading.notes() == ("fields that were not used: Region",)
