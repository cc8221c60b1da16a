"""Garbage collector: paused while many objects are made that all stay reachable."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = (20_000, 20, 20)  # by default after 700 new objects


def collect_rarely() -> None:
    """Let the collector look after 20,000 new objects, for a process that mostly loads modules.

    All that they make stays reachable, and looking at it took an eighth of a command's start.
    """
    gc.set_threshold(*_RARELY)


def skip_last_collection() -> None:
    """Let this process end without a search for cycles in all that it has ever made.

    The interpreter would search twice as it shuts down, for an eighth of a command's time.
    """
    atexit.register(gc.freeze)  # what is registered first runs last


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector of this process: scanning reachable objects costs more than making them.

    Only cycles wait; reference counts free the rest as ever. One that was off already stays off.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
