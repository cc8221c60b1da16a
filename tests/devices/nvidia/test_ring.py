"""Samples through shared memory."""

import math
import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.devices.nvidia import ring as ring_module
from tuner.devices.nvidia.ring import RingReader, RingWriter, create_ring_file


@pytest.fixture
def descriptor() -> Iterator[int]:
    opened = create_ring_file()
    yield opened
    os.close(opened)


def test_what_is_written_is_read(descriptor: int) -> None:
    reader = RingReader(descriptor, 2)
    writer = RingWriter(descriptor, 2)
    assert reader.written == 0
    assert reader.since(0.0) == []
    writer.append(1.5, [10.0, 300.0, 1980.0, 45.0, 4, 20.0, None, 1200, None, 0])
    assert reader.written == 1
    row = reader.row(0)
    assert row[:6] == (1.5, 10.0, 300.0, 1980.0, 45.0, 4.0)
    assert math.isnan(row[7]) and math.isnan(row[9])


@given(rows=st.integers(0, 40), capacity=st.integers(2, 16), since=st.integers(-2, 42))
def test_since_returns_the_newest_rows_from_the_one_before(
    rows: int, capacity: int, since: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring_module, "CAPACITY", capacity)
        descriptor = create_ring_file()
        try:
            reader, writer = RingReader(descriptor, 0), RingWriter(descriptor, 0)
            for i in range(rows):
                writer.append(float(i), [])
            kept = range(max(0, rows - capacity + 1), rows)  # one may be half overwritten
            first = max((i for i in range(rows) if i < since), default=0)
            wanted = [float(i) for i in kept if i >= first]
            assert [row[0] for row in reader.since(float(since))] == wanted
        finally:
            os.close(descriptor)


def test_no_torn_row_is_read_while_it_is_written(
    descriptor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring_module, "CAPACITY", 8)
    reader, writer = RingReader(descriptor, 4), RingWriter(descriptor, 4)
    stop = threading.Event()

    def write() -> None:
        i = 0
        while not stop.is_set():
            writer.append(float(i), [float(i)] * 20)
            i += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(2000):
            rows = reader.since(0.0)
            assert all(len(set(row)) == 1 for row in rows)
            times = [row[0] for row in rows]
            assert times == sorted(set(times))
    finally:
        stop.set()
        thread.join()


def test_a_window_of_an_hour_is_kept_beside_the_load_that_settled_it(descriptor: int) -> None:
    rate_hz, load_s, window_s = 10, 2 * 3600, 3600
    reader, writer = RingReader(descriptor, 8), RingWriter(descriptor, 8)
    for i in range(load_s * rate_hz):
        writer.append(i / rate_hz, [float(i)] * 40)
    begin_s = 600.0
    rows = reader.since(begin_s)
    assert rows[0][0] < begin_s and rows[-1][0] == load_s - 1 / rate_hz
    window = [row for row in rows if begin_s <= row[0] < begin_s + window_s]
    assert len(window) == window_s * rate_hz


def test_memory_is_taken_as_rows_are_written(descriptor: int) -> None:
    RingReader(descriptor, 8)
    writer = RingWriter(descriptor, 8)
    for i in range(1000):
        writer.append(float(i), [float(i)] * 40)
    rows_bytes = 1000 * 8 * 41
    assert os.fstat(descriptor).st_blocks * 512 < 2 * rows_bytes < ring_module.ring_bytes(8) / 50
