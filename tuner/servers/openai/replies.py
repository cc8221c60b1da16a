"""Replies of servers: read up to a limit, also unpacked, and never from where a redirect leads."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

MOST_BYTES = 4 * 2**20  # a page of vLLM's counters has a tenth; JSON takes fifty times its length
_READ_BYTES = 2**16
_PACKED = {"gzip": 16 + zlib.MAX_WBITS, "deflate": 32 + zlib.MAX_WBITS}


@asynccontextmanager
async def reply_to(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Ask, and yield the reply; `body_of` reads it. Raises `aiohttp.ClientError`.

    A redirect is an error: what answers elsewhere is not the server that is measured.
    """
    async with session.request(
        method,
        url,
        allow_redirects=False,
        auto_decompress=False,  # aiohttp would unpack without a limit
        headers={"Accept-Encoding": "identity", **(headers or {})},
        **options,
    ) as reply:
        if 300 <= reply.status < 400:
            raise aiohttp.ClientPayloadError(
                f"HTTP {reply.status}: a redirect to another address, which is not followed"
            )
        yield reply


async def body_of(reply: aiohttp.ClientResponse) -> bytes:
    """Return the body, unpacked; raises `aiohttp.ClientPayloadError` beyond `MOST_BYTES`."""
    pieces: list[bytes] = []
    size = 0
    async for piece in reply.content.iter_chunked(_READ_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            reply.close()
            raise aiohttp.ClientPayloadError(f"more than {MOST_BYTES >> 20} MiB were answered")
    body = b"".join(pieces)
    packing = reply.headers.get("Content-Encoding", "identity").strip().lower()
    return body if packing in ("", "identity") or not body else _unpacked(body, packing)


async def json_of(reply: aiohttp.ClientResponse) -> Any:
    """Return the body as JSON; raises `ValueError`, `RecursionError` and what `body_of` does."""
    return json.loads(await body_of(reply))


def _unpacked(body: bytes, packing: str) -> bytes:
    if packing not in _PACKED:
        raise aiohttp.ClientPayloadError(f"the answer is packed as {packing[:20]!r}")
    unpack = zlib.decompressobj(_PACKED[packing])
    try:
        found = unpack.decompress(body, MOST_BYTES)
    except zlib.error as error:
        raise aiohttp.ClientPayloadError(f"the answer cannot be unpacked: {error}") from error
    if not unpack.eof:
        raise aiohttp.ClientPayloadError(
            f"the answer is cut off, or unpacks to more than {MOST_BYTES >> 20} MiB"
        )
    return found
