"""Garbage collector: paused while many objects are made that all stay reachable."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
