"""Bodies, however they are framed and cut, arrive whole and once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.load.client.framing import Chunked, HttpError, Sized, UntilClosed, read_head

CUTS = st.lists(st.integers(0, 400), max_size=6)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def pieces(wire: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]
    return [wire[start:end] for start, end in pairwise(places)]


@settings(deadline=None)
@given(
    bodies=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    last=st.sampled_from([b"0\r\n\r\n", b"000;e=1\r\nX: y\r\n\r\n"]),
    excess=st.sampled_from([b"", b"H", b"HTTP/1.1 200 OK\r\n"]),
    cuts=CUTS,
)
def test_a_chunked_body_is_its_chunks_wherever_it_is_cut(
    bodies: list[bytes], last: bytes, excess: bytes, cuts: list[int]
) -> None:
    framing, found, given = Chunked(), b"", b""
    wire = b"".join(map(chunk, bodies)) + last
    for piece in pieces(wire + excess, cuts):
        if framing.ended:
            break  # who reads does not go on
        found += framing.feed(piece)
        given += piece
        assert framing.ended == (len(given) >= len(wire))
    assert found == b"".join(bodies)
    assert framing.has_excess == (len(given) > len(wire))


@settings(deadline=None)
@given(body=st.binary(max_size=60), excess=st.binary(max_size=5), cuts=CUTS)
def test_a_sized_body_ends_at_its_length(body: bytes, excess: bytes, cuts: list[int]) -> None:
    framing, found, given = Sized(len(body)), b"", b""
    for piece in pieces(body + excess, cuts):
        if framing.ended:
            break
        found += framing.feed(piece)
        given += piece
    assert framing.ended
    assert found == body
    assert framing.has_excess == (len(given) > len(body))


@pytest.mark.parametrize(
    "odd",
    [
        b"5\r\nhelloXX\r\n",
        b"-5\r\n",
        b"0x5\r\n",
        b"\r\n",
        b"zz\r\n",
        b"f" * 300_000,
        b"f" * 17 + b"\r\n",
    ],
)
def test_what_is_no_chunk_is_an_error(odd: bytes) -> None:
    framing = Chunked()
    assert framing.feed(chunk(b"ok")) == b"ok"
    with pytest.raises(HttpError):
        framing.feed(odd)


@pytest.mark.parametrize(
    ("head", "status", "framing", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", 200, Chunked, True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding:Chunked\r\nconnection: Close", 200, Chunked, False),
        (b"HTTP/1.1 404\r\nContent-Length: 7", 404, Sized, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 7", 200, Sized, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive", 200, Sized, True),
        (b"HTTP/1.1 204 No Content", 204, Sized, True),
        (b"HTTP/1.1 200 OK\r\nX: y", 200, UntilClosed, False),
    ],
)
def test_a_head_says_how_the_body_ends_and_whether_the_connection_stays(
    head: bytes, status: int, framing: type, keeps: bool
) -> None:
    found = read_head(head)
    assert (found.status, type(found.framing), found.keeps_connection) == (status, framing, keeps)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"220 mail.example ESMTP",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 2xx OK",
        b"HTTP/1.1 200 OK\r\nno field",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
    ],
)
def test_what_is_no_head_is_an_error(head: bytes) -> None:
    with pytest.raises(HttpError):
        read_head(head)
