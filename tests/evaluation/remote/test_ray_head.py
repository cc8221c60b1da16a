"""A head that is out of reach ends what waits for it, once patience is over."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from tuner.errors import OperatorNeededError
from tuner.evaluation.remote import ray_head
from tuner.evaluation.remote.ray_head import PATIENCE, RayHead, longer_patience


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_head, "_LOOK_S", 0.01)


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def address_of(server: socket.socket) -> str:
    host, port = server.getsockname()
    return f"{host}:{port}"


async def test_it_waits_for_what_takes_longer_than_its_patience() -> None:
    with listening() as server:
        head = RayHead(address_of(server), 0.0)
        work = asyncio.ensure_future(asyncio.sleep(0.2, "done"))
        assert await head.while_reached(work) == "done"
    assert not head.is_lost


async def test_a_lost_head_is_told_with_what_to_do() -> None:
    with listening() as server:
        head, never = RayHead(address_of(server), 0.05), asyncio.Future[None]()
        waiting = asyncio.ensure_future(head.while_reached(never))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    with pytest.raises(OperatorNeededError, match="start the cluster again, then resume"):
        await asyncio.wait_for(waiting, 10.0)
    assert head.is_lost and not never.cancelled()
    with pytest.raises(OperatorNeededError):  # at once, for whoever asks later
        await asyncio.wait_for(head.while_reached(never), 10.0)


async def test_a_head_that_comes_back_in_time_is_not_lost() -> None:
    with listening() as server:
        address = address_of(server)
    head, work = RayHead(address, 30.0), asyncio.Future[str]()
    waiting = asyncio.ensure_future(head.while_reached(work))
    await asyncio.sleep(0.1)
    host, port = address.split(":")
    with socket.create_server((host, int(port)), reuse_port=True):
        await asyncio.sleep(0.1)
        work.set_result("done")
        assert await waiting == "done"
    assert not head.is_lost


async def test_what_fails_fails() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await RayHead("127.0.0.1:1", 60.0).while_reached(asyncio.ensure_future(fails()))


@pytest.mark.parametrize(("found", "patience_s"), [(None, 60.0), ("5", 5.0)])
def test_ray_waits_longer_than_the_tuner(
    monkeypatch: pytest.MonkeyPatch, found: str | None, patience_s: float
) -> None:
    monkeypatch.delenv(PATIENCE, raising=False)
    if found is not None:
        monkeypatch.setenv(PATIENCE, found)
    with longer_patience() as waits_s:
        assert waits_s == patience_s and float(os.environ[PATIENCE]) > waits_s
    assert os.environ.get(PATIENCE) == found
