import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.records import Request


@pytest.fixture(scope="session")
def h100() -> Gpu:
    return load_gpu("H100-SXM")


@pytest.fixture(scope="session")
def llama() -> ModelShape:
    return load_model("meta-llama/Llama-3.1-8B-Instruct")


class CountingWatch:
    """Opens the window at one finished request and closes it at another; checks the order."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.events: list[tuple[float, str]] = []
        self.count = 0
        self.window_start_s: float | None = None
        self.window_end_s: float | None = None

    def _note(self, now_s: float, what: str) -> None:
        assert not self.events or now_s >= self.events[-1][0]
        self.events.append((now_s, what))

    def started(self, now_s: float) -> None:
        self._note(now_s, "started")

    def sent(self, now_s: float) -> None:
        self._note(now_s, "sent")

    def finished(self, now_s: float) -> None:
        self._note(now_s, "finished")
        self.count += 1
        if self.count == self.first:
            self.window_start_s = now_s
        if self.count == self.last:
            self.window_end_s = now_s


class FixedWatch(CountingWatch):
    """A window whose times are known before the load begins."""

    def __init__(self, start_s: float, end_s: float) -> None:
        super().__init__(0, 0)
        self.window_start_s, self.window_end_s = start_s, end_s


@pytest.fixture
def counting_watch() -> type[CountingWatch]:
    return CountingWatch


@pytest.fixture
def fixed_watch() -> type[FixedWatch]:
    return FixedWatch


@pytest.fixture
def requests_of() -> Callable[[int, int], Iterator[Request]]:
    def make(prompt_tokens: int, output_tokens: int) -> Iterator[Request]:
        prompt = np.ones(prompt_tokens, np.int32)
        return (Request(i, float(i), prompt, output_tokens) for i in itertools.count())

    return make
