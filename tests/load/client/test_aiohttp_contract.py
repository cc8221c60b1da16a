"""The private parts of aiohttp that `body_stream` builds on, each named and each shown to work.

They are why pyproject.toml bounds aiohttp above. When a new minor version comes: raise the bound,
run this file and `test_body_stream.py`, and adapt `body_stream` to whatever fails here.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import tomllib
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import client_proto, connector, streams

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
WHOLE_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (client_proto, ["ResponseHandler"]),
        (connector, ["AddrInfoType", "Connection"]),
        (streams, ["EMPTY_PAYLOAD", "StreamReader"]),
        (connector.Connection, ["protocol"]),
        (streams.StreamReader, ["read_nowait", "at_eof", "exception"]),
        (
            client_proto.ResponseHandler,
            [
                "connection_made",
                "connection_lost",
                "data_received",
                "set_response_params",
                "exception",
            ],
        ),
        (aiohttp.ClientResponse, ["start"]),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else "",
)
def test_what_body_stream_imports_and_overrides_is_there(owner: object, names: list[str]) -> None:
    missing = [name for name in names if not hasattr(owner, name)]
    assert not missing, f"aiohttp {aiohttp.__version__} has no {missing} in {owner}"


def test_signatures_of_what_is_overridden() -> None:
    def parameters(function: object) -> list[str]:
        return list(inspect.signature(function).parameters)  # type: ignore[arg-type]

    handler = client_proto.ResponseHandler
    assert parameters(handler) == ["loop"]
    assert parameters(handler.data_received) == ["self", "data"]
    assert parameters(aiohttp.ClientResponse.start) == ["self", "connection"]
    assert "socket_factory" in parameters(aiohttp.TCPConnector)
    kinds = {p.kind for p in inspect.signature(handler.set_response_params).parameters.values()}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


async def test_a_connector_makes_its_connections_with_the_private_factory() -> None:
    async with aiohttp.TCPConnector() as made:
        assert isinstance(made._factory, partial)
        assert made._factory.func is client_proto.ResponseHandler
        assert isinstance(made._factory(), client_proto.ResponseHandler)


async def test_a_handler_keeps_the_body_it_reads_in_its_private_payload() -> None:
    handler = client_proto.ResponseHandler(asyncio.get_running_loop())
    handler.connection_made(asyncio.Transport())
    assert handler._payload is None
    handler.set_response_params()
    head, end, body = WHOLE_ANSWER.partition(b"\r\n\r\n")
    handler.data_received(head + end)
    payload = handler._payload
    assert isinstance(payload, streams.StreamReader)
    assert payload.read_nowait() == b""
    handler.data_received(body)
    assert payload.read_nowait() == b"ok"
    assert payload.at_eof()
    assert payload.exception() is None


def test_pyproject_admits_this_version_and_no_minor_version_that_was_never_tried() -> None:
    (bound,) = (
        requirement
        for requirement in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
        if requirement.startswith("aiohttp")
    )
    found = re.fullmatch(r"aiohttp>=3\.(\d+),<3\.(\d+)", bound)
    assert found is not None, bound
    major, minor, *_ = aiohttp.__version__.split(".")
    assert major == "3" and int(found[1]) <= int(minor) < int(found[2]), aiohttp.__version__
