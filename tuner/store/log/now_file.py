"""Progress file: the load of a running study, in a small file beside the store's lock.

`tuner status` reads it in another terminal. A study on a database server has no such file.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tuner.host.durable_files import replacing
from tuner.records import LoadSnapshot, Source
from tuner.store.address import file_of, parse_address
from tuner.store.lock.file_lock import lock_path

FRESH_S = 5.0  # it is written once a second


class NowFile:
    """The progress file of one study; the holder of the study's lock replaces it atomically."""

    def __init__(self, store_url: str | Path, study: str) -> None:
        store = file_of(parse_address(store_url))
        self._path = None if store is None else lock_path(store, study).with_suffix(".now")

    def write(self, snapshot: LoadSnapshot) -> None:
        """Replace the content; a full or missing disk must not end the study."""
        if self._path is None:
            return
        line = {"at": datetime.now(UTC).isoformat(), **asdict(snapshot)}
        with suppress(OSError), replacing(self._path, 0o600) as new:
            new.write(json.dumps(line).encode())

    def read(self, now: datetime, since: datetime) -> LoadSnapshot | None:
        """Return the content if written after `since` and shortly before `now`, else None."""
        if self._path is None:
            return None
        try:
            fields = json.loads(self._path.read_text(encoding="utf-8"))
            at = datetime.fromisoformat(fields.pop("at"))
            fields |= {name: Source(fields[name]) for name in ("power_source", "latency_source")}
            snapshot = LoadSnapshot(**fields)
            is_fresh = at >= since and abs(now - at) <= timedelta(seconds=FRESH_S)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return snapshot if is_fresh else None

    def close(self) -> None:
        """Remove the file: nothing runs."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
