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
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-s"]
    try:
        as_server_user(
            [str(binaries / "initdb"), "-D", str(data), "-U", "tuner", "-A", "trust", "-N"]
        )
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
        as_server_user([*control, "-l", str(folder / "log"), "-o", options, "start"])
        try:
            yield f"postgresql://tuner@/postgres?host={folder}"
        finally:
            as_server_user([*control, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder)
