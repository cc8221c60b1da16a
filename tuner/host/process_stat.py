"""Process status: the fields of `/proc/PID/stat`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """A running process. A pid means the same process only with the same `start_ticks`."""

    name: str
    parent_pid: int
    start_ticks: int


def process_stat(pid: int) -> ProcessStat | None:
    """Read one process; None if it is gone, a zombie or unreadable."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # the name, in brackets, may itself contain blanks and brackets
    name, _, rest = content.partition(b"(")[2].rpartition(b")")
    fields = rest.split()  # state, parent, ..., start: the 3rd, 4th and 22nd field of proc(5)
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return ProcessStat(name.decode(errors="replace"), int(fields[1]), int(fields[19]))
