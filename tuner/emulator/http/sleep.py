"""Sleep mode as vLLM's routes for developers have it: the weights go to the host, or are dropped.

The GPUs draw idle power meanwhile: the process keeps its context on them.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

_HOST_LINK_BYTES_S = 25e9  # PCIe 4.0 x16, as most of it as copies reach; assumed
_DISK_BYTES_S = 3e9  # a read from NVMe; assumed
_TAGS = frozenset(("weights", "kv_cache"))


class SleepMode:
    """The state of one server; while it sleeps, requests wait."""

    def __init__(self, weights_bytes: float, speed: float = 1.0) -> None:
        self.awake = asyncio.Event()
        self.awake.set()
        self._link_s = weights_bytes / _HOST_LINK_BYTES_S / speed
        self._disk_s = weights_bytes / _DISK_BYTES_S / speed
        self._asleep: set[str] = set()
        self._level = 0

    def add_routes(self, app: web.Application) -> None:
        """Add the routes of `VLLM_SERVER_DEV_MODE=1`."""
        app.router.add_post("/sleep", self._sleep)
        app.router.add_post("/wake_up", self._wake_up)
        app.router.add_get("/is_sleeping", self._is_sleeping)
        app.router.add_post("/collective_rpc", self._collective_rpc)

    async def _sleep(self, request: web.Request) -> web.Response:
        self._level = int(request.query.get("level", "1"))
        self.awake.clear()
        self._asleep = set(_TAGS)
        await asyncio.sleep(self._link_s if self._level == 1 else 0.0)
        return web.Response()

    async def _wake_up(self, request: web.Request) -> web.Response:
        tags = set(request.query.getall("tags", [])) or _TAGS
        if self._level == 1 and "weights" in tags & self._asleep:
            await asyncio.sleep(self._link_s)
        self._asleep -= tags
        if not self._asleep:
            self.awake.set()
        return web.Response()

    async def _is_sleeping(self, _: web.Request) -> web.Response:
        return web.json_response({"is_sleeping": bool(self._asleep)})

    async def _collective_rpc(self, request: web.Request) -> web.Response:
        method = (await request.json()).get("method")
        if method != "reload_weights":
            return web.json_response({"error": f"not emulated: {method}"}, status=400)
        await asyncio.sleep(self._disk_s)
        return web.json_response({"results": [None]})
