"""Bring results back from a GPU machine.

    python keep.py keep RESULTS OUT       on the machine: all of it, in parts of 15 MiB
    python keep.py join OUT FOLDER        here: the parts become files again

Stores are copied by SQLite, so one that is being written is whole. They come twice: without raw
records beside everything else, and whole in parts of their own, of which some may be too many.
"""

from __future__ import annotations

import io
import lzma
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

_PART_BYTES = 15 * 2**20
_RAW_TABLES = ("tuner_raw_runs", "tuner_repeat_raw_runs")
_STAYS = (".db-wal", ".db-shm", ".lock", ".now", ".reserve")
_COPIES = (".backup-", ".measured/")  # the tuner's own copies of what is in a store


def keep(results: Path, target: Path) -> None:
    """Write `results` to `target/kept.00`, ... and the whole stores to `target/stores.00`, ..."""
    with tempfile.TemporaryDirectory() as scratch:
        stores = [_copied(path, Path(scratch)) for path in sorted(results.glob("*.db"))]
        _write(target, "stores", ((path, path.name) for path in stores))
        others = [path for path in sorted(results.rglob("*")) if _is_wanted(path)]
        for path in stores:
            _take_raw_out(path)
        named = [(path, str(path.relative_to(results))) for path in others]
        _write(target, "kept", [*named, *((path, path.name) for path in stores)])


def join(parts: Path, folder: Path) -> None:
    """Unpack the parts in `parts` into `folder`; stores lack raw records if a part is missing."""
    for name in ("kept", "stores"):
        whole = b"".join(path.read_bytes() for path in sorted(parts.glob(f"{name}.[0-9][0-9]")))
        try:
            unpacked = lzma.decompress(whole)
        except lzma.LZMAError as error:
            print(f"{name}: not whole ({error})")
            continue
        with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
            archive.extractall(folder, filter="data")


def _is_wanted(path: Path) -> bool:
    is_copy = any(mark in str(path) for mark in _COPIES)
    return path.is_file() and not is_copy and not path.name.endswith((".db", *_STAYS))


def _write(target: Path, name: str, files: Iterable[tuple[Path, str]]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=1) as archive:
        for path, named in files:
            _add(archive, path, named)
    whole = packed.getvalue()
    for number, start in enumerate(range(0, len(whole), _PART_BYTES)):
        (target / f"{name}.{number:02}").write_bytes(whole[start : start + _PART_BYTES])
    print(f"{name}: {len(whole) / 2**20:.1f} MiB")


def _add(archive: tarfile.TarFile, source: Path, name: str) -> None:
    """Add a file that may be written to, or renamed, meanwhile."""
    try:
        contents = source.read_bytes()
    except FileNotFoundError:
        return
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(contents), int(time.time())
    archive.addfile(entry, io.BytesIO(contents))


def _copied(store: Path, folder: Path) -> Path:
    copy = folder / store.name
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _take_raw_out(store: Path) -> None:
    with closing(sqlite3.connect(store)) as database:
        known = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        for table in known.intersection(_RAW_TABLES):
            database.execute(f"DELETE FROM {table}")
        database.commit()
        database.execute("VACUUM")


if __name__ == "__main__":
    {"keep": keep, "join": join}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
