"""Zeus's daemon, where this user may not set limits itself."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from helpers.nvml_standin import Standin

from tuner.devices.limit_control import Access, LimitControl, PermissionDeniedError
from tuner.devices.open import open_limits
from tuner.errors import OperatorNeededError, PreflightError, UsageError


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


@pytest.fixture
def zeusd(standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeZeusd]:
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "zeusd.sock"))
    for index in (0, 1):
        standin.device(index).deny_setting()
    with FakeZeusd(standin, tmp_path / "zeusd.sock") as running:
        yield running


@pytest.fixture
def limits(zeusd: FakeZeusd) -> Iterator[LimitControl]:
    control = open_limits(Access.SET)
    assert control is not None
    yield control
    control.close()


def test_it_sets_what_we_may_not(standin: Standin, zeusd: FakeZeusd, limits: LimitControl) -> None:
    uuid = standin.device(1).uuid
    limits.set_power_limit(uuid, 450.5)
    limits.lock_sm_clock(uuid, 1203)
    assert (standin.device(1).limit_w, standin.device(1).locked_mhz) == (450.5, 1200)
    assert limits.state(uuid).locked_sm_clock_mhz == 1200
    limits.unlock_sm_clock(uuid)
    assert standin.device(1).locked_mhz is None
    assert standin.device(0).limit_w == 700
    assert zeusd.requests == [
        {
            "path": "/gpu/set_power_limit",
            "gpu_ids": "1",
            "power_limit_mw": "450500",
            "block": "true",
        },
        {
            "path": "/gpu/set_gpu_locked_clocks",
            "gpu_ids": "1",
            "min_clock_mhz": "1200",
            "max_clock_mhz": "1200",
            "block": "true",
        },
        {"path": "/gpu/reset_gpu_locked_clocks", "gpu_ids": "1", "block": "true"},
    ]


def test_it_is_not_asked_where_we_may(
    standin: Standin, zeusd: FakeZeusd, limits: LimitControl
) -> None:
    standin.device(0).mend()
    limits.set_power_limit(standin.device(0).uuid, 400)
    with pytest.raises(UsageError, match="out of range"):
        limits.set_power_limit(standin.device(1).uuid, 100)
    assert zeusd.requests == []


def test_what_it_says_it_did_is_read_back(
    standin: Standin, zeusd: FakeZeusd, limits: LimitControl
) -> None:
    zeusd.does_it = False
    with pytest.raises(OperatorNeededError, match="set to 400 W but reads 700 W"):
        limits.set_power_limit(standin.device(0).uuid, 400)


@pytest.mark.parametrize(("status", "error"), [(403, PermissionDeniedError), (500, PreflightError)])
def test_its_refusal_is_told(
    standin: Standin, zeusd: FakeZeusd, limits: LimitControl, status: int, error: type
) -> None:
    zeusd.status = status
    with pytest.raises(error, match="as told by the test") as caught:
        limits.lock_sm_clock(standin.device(0).uuid, 1200)
    assert type(caught.value) is error
    assert limits.state(standin.device(0).uuid).locked_sm_clock_mhz is None


@pytest.mark.parametrize(("token", "allowed"), [("secret", True), ("wrong", False)])
def test_the_token_is_sent(
    standin: Standin,
    zeusd: FakeZeusd,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    allowed: bool,
) -> None:
    monkeypatch.setenv("ZEUSD_TOKEN", token)
    control = open_limits(Access.SET)
    assert control is not None
    try:
        if allowed:
            control.set_power_limit(standin.device(0).uuid, 400)
        else:
            with pytest.raises(PermissionDeniedError, match="bad token"):
                control.set_power_limit(standin.device(0).uuid, 400)
    finally:
        control.close()


def test_a_daemon_that_is_not_there(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "nobody.sock"))
    standin.device(0).deny_setting()
    control = open_limits(Access.SET)
    assert control is not None
    with pytest.raises(PreflightError, match="ZEUSD_SOCK_PATH"):
        control.set_power_limit(standin.device(0).uuid, 400)
    control.close()
