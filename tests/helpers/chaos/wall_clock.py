"""A wall clock that the processes of a test see, and that the test can set."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("wall_clock.c")
_OFFSET_S = struct.Struct("q")


class WallClock:
    """What processes started with `environment()` take for the time of day; `step` sets it."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("cc") is None:
            pytest.skip("the clock is built with a C compiler: install gcc")
        self._library = folder / "wall_clock.so"
        command = ["cc", "-shared", "-fPIC", "-O2", str(SOURCE), "-o", str(self._library), "-ldl"]
        subprocess.run(command, check=True)
        self._offset = folder / "wall_clock.offset"
        self._offset.write_bytes(_OFFSET_S.pack(0))

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK_OFFSET": str(self._offset)}

    def step(self, seconds: int) -> None:
        """Set the clock forward, or back, for every process that sees it."""
        with self._offset.open("r+b") as file:
            now_s = _OFFSET_S.unpack(file.read())[0]
            file.seek(0)
            file.write(_OFFSET_S.pack(now_s + seconds))
