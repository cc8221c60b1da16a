"""A file is replaced whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuner.host.durable_files import (
    _is_of_the_kernel,
    remove_durably,
    replacing,
    sync,
    write_durably,
)


def test_it_takes_the_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with replacing(path) as new:
        new.write(b"new")
        assert path.read_text() == "old"
        assert Path(new.name).suffix == path.suffix
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as new:
        new.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written_the_error_is_the_writers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none/page.html"):
        pass


def test_a_durable_file_is_written_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    write_durably(path, "one")
    write_durably(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]
    sync(path)
    sync(tmp_path)
    remove_durably(path)
    remove_durably(path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_durably_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    write_durably(path, "one")
    (tmp_path / "lease.json.tmp").mkdir()
    with pytest.raises(OSError):
        write_durably(path, "two")
    assert path.read_text() == "one"


def test_stdout_that_is_a_file_is_written_to_and_stays_a_link(tmp_path: Path) -> None:
    """As root, `tuner export --csv - > night.csv` put a file in place of /dev/stdout."""
    code = (
        "from pathlib import Path\n"
        "from tuner.host.durable_files import replacing\n"
        "with replacing(Path('/proc/self/fd/1')) as file: file.write(b'second')\n"
    )
    with (tmp_path / "out").open("wb") as out:
        out.write(b"first ")
        out.flush()
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "first second"
    assert _is_of_the_kernel(Path("/dev/stdout")) and not _is_of_the_kernel(tmp_path / "out")
