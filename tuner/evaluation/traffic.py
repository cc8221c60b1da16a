"""Traffic of a study: the stretch that configurations are compared on, and unseen ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tuner.load.workload import Workload
from tuner.records import Load, Request
from tuner.spec.study import TrafficKind

# Half a window is a block, so that windows which begin at a multiple of it hold two whole ones.
BLOCKS_PER_WINDOW = 2
_CLOSED_BLOCK = 64  # requests; in a closed loop nobody knows how many a window has


@dataclass(slots=True)
class Traffic:
    """The requests of the evaluations of one study.

    `kind` says what configurations are compared on: `representative` for stratified gaps and
    lengths, `drawn` for the workload as it is drawn (studies of an older version). `window_s` is
    the length of a window of an open load.
    """

    workload: Workload
    kind: TrafficKind = "representative"
    window_s: float = 180.0
    _compared: dict[int, Workload] = field(default_factory=dict)
    _unseen: dict[int, Workload] = field(default_factory=dict)

    def compared_on(
        self, load: Load, thinking: str | None = None, steps: int | None = None
    ) -> Iterator[Request]:
        """Return the same requests for every configuration under this load."""
        if self.kind == "drawn":
            return self.workload.requests(thinking, steps)
        block = self.block_requests(load)
        if block not in self._compared:
            self._compared.clear()  # it keeps prompts in memory
            self._compared[block] = self.workload.representative(block)
        return self._compared[block].requests(thinking, steps)

    def unseen(
        self, number: int, thinking: str | None = None, steps: int | None = None
    ) -> Iterator[Request]:
        """Return requests that `compared_on` does not have; others for each number from 0 on."""
        if number not in self._unseen:
            self._unseen.clear()
            self._unseen[number] = self.workload.unseen(number)
        return self._unseen[number].requests(thinking, steps)

    def requests(
        self,
        load: Load,
        unseen: int | None,
        thinking: str | None = None,
        steps: int | None = None,
    ) -> Iterator[Request]:
        """Return the requests of unseen stretch number `unseen`; None is the compared one.

        `thinking` is the level at which they think, `steps` those of an image or video; None leaves
        that to the workload.
        """
        if unseen is None:
            return self.compared_on(load, thinking, steps)
        return self.unseen(unseen, thinking, steps)

    def block_requests(self, load: Load) -> int:
        """Return how many requests half a window is offered."""
        if load.request_rate is None:
            return _CLOSED_BLOCK
        return max(1, round(load.request_rate * self.window_s / BLOCKS_PER_WINDOW))
