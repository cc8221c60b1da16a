"""The whole of `make fuzz` in a bounded memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest
from helpers.hostile import CASES_VARIABLE, offered

MOST_BYTES = 500 * 10**6


@pytest.fixture(scope="session", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Where this process does nothing else: at most so much more than it has now, and in all."""
    if CASES_VARIABLE not in os.environ:
        yield
        return
    with open("/proc/self/statm") as file:  # noqa: PTH123 - read before the limit is set
        mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped_bytes + MOST_BYTES,) * 2)
    yield
    assert peak_bytes() <= MOST_BYTES, f"{peak_bytes() / 1e6:.0f} MB were used"


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if offered:
        megabytes = peak_bytes() / 1e6
        terminalreporter.write_line(f"{len(offered)} hostile inputs, {megabytes:.0f} MB at most")
