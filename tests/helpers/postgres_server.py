"""A real PostgreSQL server for the length of a `with` block."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def as_server_user(command: list[str]) -> None:
    """PostgreSQL refuses to run as root."""
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60, **user)  # type: ignore[call-overload]


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URL of a server of its own; skips the test where PostgreSQL is not installed."""
    if not BINARIES:
        pytest.skip("no /usr/lib/postgresql/*/bin/initdb: install Debian's package postgresql")
    binaries = BINARIES[-1].parent
    folder = Path(mkdtemp(prefix="tuner-pg-"))  # a socket's path has to be short
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    data = folder / "data"
    try:
        as_server_user(
            [str(binaries / "initdb"), "-D", str(data), "-U", "tuner", "-A", "trust", "-N"]
        )
        url = f"postgresql://tuner@/postgres?host={folder}"
        start(url)
        try:
            yield url
        finally:
            stop(url)
    finally:
        shutil.rmtree(folder)


def start(url: str) -> None:
    """Start the server of a URL that `postgres_server` yielded.

    It need not survive a loss of power, only its own crashes, so nothing is synced.
    """
    folder = _folder(url)
    options = f"-c fsync=off -c listen_addresses='' -c unix_socket_directories='{folder}'"
    as_server_user([*_control(folder), "-l", str(folder / "log"), "-o", options, "start"])


def stop(url: str) -> None:
    """Stop it as a crash does: every connection is cut, and the next start recovers."""
    as_server_user([*_control(_folder(url)), "-m", "immediate", "stop"])


def _folder(url: str) -> Path:
    return Path(url.partition("host=")[2])


def _control(folder: Path) -> list[str]:
    return [str(BINARIES[-1].parent / "pg_ctl"), "-D", str(folder / "data"), "-w", "-s"]
