"""Zeus's daemon in a thread: it changes the stand-in's GPUs where this user may not."""

import asyncio
import threading
from pathlib import Path

from aiohttp import web

from helpers.nvml_standin import Standin


class FakeZeusd:
    """Takes what zeusd takes, and does it on the stand-in as its own root process would."""

    def __init__(self, standin: Standin, path: Path) -> None:
        self.requests: list[dict[str, str]] = []
        self.status = 200
        self.does_it = True
        self._standin = standin
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    async def _handle(self, request: web.Request) -> web.Response:
        self.requests.append({"path": request.path, **request.query})
        if request.headers.get("Authorization") not in (None, "Bearer secret"):
            return web.Response(status=401, text="bad token")
        if self.status == 200 and self.does_it:
            device = self._standin.device(int(request.query["gpu_ids"]))
            if request.path.endswith("set_power_limit"):
                device.set(limit_mw=int(request.query["power_limit_mw"]))
            else:
                low, high = (int(request.query.get(f"{m}_clock_mhz", 0)) for m in ("min", "max"))
                device.set(lock_min_mhz=low, lock_max_mhz=high)
        return web.Response(status=self.status, text="as told by the test")

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        for name in ("set_power_limit", "set_gpu_locked_clocks", "reset_gpu_locked_clocks"):
            app.router.add_post(f"/gpu/{name}", self._handle)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.UnixSite(runner, str(self._path)).start())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def __enter__(self) -> "FakeZeusd":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
