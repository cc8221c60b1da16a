"""The measurement log: what was appended comes back, whatever happens to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.log_records import STUDY, logged
from helpers.subprocesses import environment_with_helpers

from tuner.records import Failure, FailureKind, Load, Timing
from tuner.store import ProbeKind, RepeatKind
from tuner.store.address import parse_address
from tuner.store.log.log_records import LoggedResult, RepeatOf
from tuner.store.log.measurement_log import (
    MeasurementLog,
    encoded,
    latest,
    log_folder_of,
    log_path_of,
    read_log,
)

REPEAT = replace(
    logged(3),
    repeat=RepeatOf(7, RepeatKind.CONFIRMATION),
    answers=((1, 2), (3,)),
    timing=Timing(1.0, 0.5),
)
PROBE = replace(logged(5), repeat=RepeatOf(7, ProbeKind.HEADROOM, 3, Load(request_rate=6.125)))
FAILED = replace(
    logged(4), result=Failure(FailureKind.UNSTABLE, "died", Path("/l")), encoded_raw=None
)


@pytest.fixture
def log(tmp_path: Path) -> MeasurementLog:
    made = MeasurementLog(tmp_path / "t.db.measured" / "night.jsonl", reserve_bytes=4096)
    made.open()
    return made


def test_everything_comes_back_in_both_directions(log: MeasurementLog) -> None:
    records = [STUDY, logged(), REPEAT, PROBE, FAILED]
    for record in records:
        log.append(record)
    assert [line.record for line in read_log(log.path)] == records
    assert list(latest(log.path)) == records[::-1]
    log.close()
    assert [p.name for p in log.path.parent.iterdir()] == ["night.jsonl"]


@pytest.mark.parametrize("kept", [0, 1, 30, 200])
def test_a_torn_last_line_spoils_neither_what_is_before_nor_what_comes_after(
    log: MeasurementLog, kept: int
) -> None:
    log.append(logged(0))
    with log.path.open("ab") as file:
        file.write(encoded(logged(1))[:kept])
    log.append(logged(2))
    assert [r.number for r in latest(log.path) if isinstance(r, LoggedResult)] == [2, 0]
    damaged = [line.record for line in read_log(log.path)].count(None)
    assert damaged == (1 if kept > 1 else 0)


def test_zeros_at_the_end_after_a_power_cut_are_no_record(log: MeasurementLog) -> None:
    log.append(logged(0))
    with log.path.open("ab") as file:
        file.write(bytes(300))
    assert [r.number for r in latest(log.path) if isinstance(r, LoggedResult)] == []
    log.append(logged(1))
    assert [r.number for r in latest(log.path) if isinstance(r, LoggedResult)] == [1]


def test_a_line_that_was_changed_is_not_believed(log: MeasurementLog) -> None:
    log.append(logged(0))
    log.path.write_bytes(log.path.read_bytes().replace(b"12.5", b"12.6"))
    assert list(latest(log.path)) == []


def test_an_empty_or_absent_log_has_nothing(log: MeasurementLog) -> None:
    assert list(latest(log.path)) == []
    log.path.touch()
    assert list(latest(log.path)) == []


def test_no_secret_is_in_it(log: MeasurementLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "very-secret")
    reason = "cannot download with very-secret"
    failure = Failure(FailureKind.UNSTABLE, reason)
    log.append(replace(logged(), result=failure, warnings=(reason,)))
    assert b"very-secret" not in log.path.read_bytes()
    assert len(list(latest(log.path))) == 1


# append under a limit of the size of files, as on a full disk but for this process only
FULL = """
import resource, sys
from pathlib import Path
from helpers.log_records import logged
from tuner.store.log.measurement_log import MeasurementLog
log = MeasurementLog(Path(sys.argv[1]), reserve_bytes=4096)
log.open()
log.append(logged(0, None))
size = log.path.stat().st_size
limit = int(size * 2.5)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
log.append(logged(1, b"x" * 10_000))
try:
    log.append(logged(2, None))
except OSError as error:
    print(error.errno, log.path.stat().st_size - size)
"""


def test_without_room_the_raw_records_are_left_out_and_then_nothing_is_half_written(
    log: MeasurementLog,
) -> None:
    command = [sys.executable, "-c", FULL, str(log.path)]
    environment = environment_with_helpers()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second = read_log(log.path)
    assert first.record == logged(0, None)
    assert second.record == logged(1, None)
    error, grown = map(int, done.stdout.split())
    assert error == 27  # EFBIG
    assert grown == pytest.approx(log.path.stat().st_size / 2, rel=0.01)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")
def test_the_reserve_takes_the_last_measurement_on_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        log = MeasurementLog(disk / "m" / "night.jsonl", reserve_bytes=64 * 1024)
        log.open()
        log.append(logged(0))
        with pytest.raises(OSError, match="No space"), (disk / "other").open("wb") as other:
            while True:
                other.write(bytes(4096))
                other.flush()
        log.append(logged(1, bytes(range(256)) * 100))
        numbers = [r.number for r in latest(log.path) if isinstance(r, LoggedResult)]
        assert numbers == [1, 0]
        assert next(latest(log.path)) == logged(1, bytes(range(256)) * 100)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_where_the_logs_are(tmp_path: Path) -> None:
    beside = log_folder_of(parse_address(tmp_path / "a.db"), tmp_path / "state")
    assert beside == tmp_path / "a.db.measured"
    servers = {
        log_folder_of(parse_address(f"postgresql://u:{password}@h/{name}"), tmp_path)
        for password in ("one", "two")
        for name in ("a", "b")
    }
    assert len(servers) == 2  # a new password is not a new database
    names = {log_path_of(tmp_path, name).name for name in ("a/b", "a_b", "\u2603" * 500)}
    assert len(names) == 3 and all(len(n) < 100 and "/" not in n for n in names)


def test_an_older_log_of_the_name_is_put_aside(log: MeasurementLog) -> None:
    assert log.put_aside() is None
    for number in range(2):
        log.append(logged(number))
        aside = log.put_aside()
        assert aside is not None and aside.name == f"night.{number + 1}.jsonl"
    assert not log.path.exists()
