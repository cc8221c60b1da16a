"""Remote evaluator: an evaluator whose methods run on a bench behind a carrier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.configuration import Configuration, Value
from tuner.evaluation.evaluator import IDLE_S, BenchLostError, Evaluation, LoadRun, Testbed
from tuner.evaluation.remote.protocol import Carrier, LeftOver, Method


class RemoteEvaluator:
    """Calls the bench's evaluator; see `tuner.evaluation.evaluator.Evaluator`.

    The bench has a guardian of its own, and opens again with the next call after it was lost.
    """

    needs_guardian = False

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._warm_for: Configuration | None = None
        self._gpu_uuids: tuple[str, ...] = ()
        self._was_lost = False

    async def prepare(self) -> Testbed:
        """Ask the bench."""
        found: Testbed = await self._call("prepare")
        self._gpu_uuids = self._gpu_uuids or found.gpu_uuids
        return found

    async def left_over(self) -> LeftOver | None:
        """Return what the bench measured for an earlier driver; see `Carrier`."""
        return await self._carrier.left_over()

    async def defaults(self) -> Mapping[str, Value]:
        """Ask the bench."""
        found: Mapping[str, Value] = await self._call("defaults")
        return found

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Evaluate there."""
        return await self._evaluation("evaluate", configuration, trial)

    def is_warm_for(self, configuration: Configuration) -> bool:
        """Say whether it is the latest configuration, and its server is warm."""
        return configuration == self._warm_for

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        """Evaluate there, on a clean launch."""
        return await self._evaluation("confirm", configuration, repeat, traffic)

    async def probe(self, configuration: Configuration, repeat: int, run: LoadRun) -> Evaluation:
        """Probe there."""
        return await self._evaluation("probe", configuration, repeat, run)

    async def idle(
        self, configuration: Configuration, repeat: int, window_s: float = IDLE_S
    ) -> Evaluation:
        """Measure the idle power there."""
        return await self._evaluation("idle", configuration, repeat, window_s)

    async def switching(self, configuration: Configuration, repeat: int) -> Evaluation:
        """Measure a start there."""
        return await self._evaluation("switching", configuration, repeat)

    async def close(self) -> None:
        """Stop the bench."""
        await self._carrier.close()

    async def _evaluation(
        self, method: Method, configuration: Configuration, *arguments: Any
    ) -> Evaluation:
        found: Evaluation = await self._call(method, configuration, *arguments)
        return found

    async def _call(self, method: Method, *arguments: Any) -> Any:
        self._warm_for = None
        if self._was_lost:
            self._was_lost = False
            if self._gpu_uuids:
                await self._require_same_gpus()
        try:
            reply = await self._carrier.call(method, *arguments)
        except BenchLostError:
            self._was_lost = True
            raise
        if reply.is_warm:
            self._warm_for = arguments[0]
        return reply.value

    async def _require_same_gpus(self) -> None:
        """Prepare the bench again after a loss; on other GPUs its figures were another card's."""
        found: Testbed = await self._call("prepare")
        if found.gpu_uuids != self._gpu_uuids:
            self._was_lost = True
            await self._carrier.close()
            raise BenchLostError(f"it came back on {', '.join(found.gpu_uuids) or 'no GPU'}")
