"""Zeus's daemon zeusd, which may change GPU settings where this user may not.

Spoken to over its Unix socket, named by `ZEUSD_SOCK_PATH` as for Zeus itself; the routes are those
of zeus 0.16 (`zeus.utils.zeusd`). It numbers GPUs as NVML does.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from urllib.parse import urlencode

from tuner.devices.limit_control import PermissionDeniedError
from tuner.errors import PreflightError


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("zeusd", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Zeusd:
    """Sets limits through the daemon. Each call raises `PreflightError` if it does not do it."""

    def __init__(self, socket_path: str, token: str | None, deadline_s: float) -> None:
        self._path = socket_path
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._deadline_s = deadline_s

    def set_power_limit(self, index: int, watts: float) -> None:
        """Set the power limit of the GPU with that number."""
        self._post("set_power_limit", index, {"power_limit_mw": round(watts * 1e3)})

    def lock_sm_clock(self, index: int, mhz: int) -> None:
        """Lock the SM clock."""
        clocks = {"min_clock_mhz": mhz, "max_clock_mhz": mhz}
        self._post("set_gpu_locked_clocks", index, clocks)

    def unlock_sm_clock(self, index: int) -> None:
        """Let the driver choose the SM clock again."""
        self._post("reset_gpu_locked_clocks", index, {})

    def _post(self, operation: str, index: int, values: Mapping[str, int]) -> None:
        query = urlencode({"gpu_ids": index, **values, "block": "true"})
        connection = _UnixConnection(self._path, self._deadline_s)
        try:
            connection.request("POST", f"/gpu/{operation}?{query}", headers=self._headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            raise PreflightError(
                f"zeusd does not answer on {self._path} ({error}); start it, or unset "
                "ZEUSD_SOCK_PATH"
            ) from error
        finally:
            connection.close()
        if response.status in (401, 403):
            raise PermissionDeniedError(f"zeusd does not allow {operation}: {text}")
        if response.status != 200:
            raise PreflightError(f"zeusd refuses {operation} ({response.status}): {text}")


def zeusd_from(environment: Mapping[str, str], deadline_s: float) -> Zeusd | None:
    """Return the daemon that the environment names, or None."""
    path = environment.get("ZEUSD_SOCK_PATH")
    return Zeusd(path, environment.get("ZEUSD_TOKEN"), deadline_s) if path else None
