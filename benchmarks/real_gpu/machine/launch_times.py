"""What a server's start spent its time on, from its own log.

    python launch_times.py RESULTS [LOGS]

For the newest LOGS (4) logs of servers: seconds from the first line to the one that says that it
serves, and each wait of two seconds or more before a line, with what that line says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

_LINE = re.compile(r"(?:INFO|WARNING) (\d\d-\d\d \d\d:\d\d:\d\d) \[([^\]]*)\] (.*)")
_SERVES = "Application startup complete"
_WAIT_S = 2.0
_SHOWN = 90


def main(results: Path, most: int) -> None:
    """Print the waits of the newest logs."""
    logs = [path for path in results.rglob("*.log") if _SERVES in path.read_text(errors="replace")]
    for path in sorted(logs, key=lambda path: path.stat().st_mtime)[-most:]:
        lines = list(_lines(path))
        if not lines:
            continue
        total_s = (lines[-1][0] - lines[0][0]).total_seconds()
        print(f"{path.relative_to(results)}: {total_s:.0f} s from its first line")
        for (before, _), (now, said) in pairwise(lines):
            wait_s = (now - before).total_seconds()
            if wait_s >= _WAIT_S:
                print(f"  {now:%H:%M:%S} after {wait_s:3.0f} s: {said[:_SHOWN]}")


def _lines(path: Path) -> Iterator[tuple[datetime, str]]:
    """Yield time and text of each line, up to the one that says that it serves."""
    for line in path.read_text(errors="replace").splitlines():
        if _SERVES in line:
            break
        if found := _LINE.search(line):
            yield datetime.strptime(found[1], "%m-%d %H:%M:%S"), f"{found[2]} {found[3]}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4)
