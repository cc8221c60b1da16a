"""The collector is as it was afterwards, also after an error."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from tuner.host.collector import collect_rarely, collector_paused


def test_it_is_off_inside_and_on_again_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError), collector_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_one_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused(), collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_process_that_loads_modules_looks_rarely() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        collect_rarely()
        assert gc.get_threshold()[0] > 10_000
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)


def ends_with(call: str) -> str:
    """Return what a cycle that a new Python leaves to its end says when it is collected."""
    program = f"""
from tuner.host import collector

class Cycle:
    def __del__(self):
        print("collected")

cycle = Cycle()
cycle.itself = cycle
{call}
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    return done.stdout


def test_a_process_ends_without_a_search_for_cycles() -> None:
    assert ends_with("") == "collected\n"
    assert ends_with("collector.skip_last_collection()") == ""
