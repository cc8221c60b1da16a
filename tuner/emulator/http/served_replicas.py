"""The served engines of one server: one, or with data parallelism several on GPUs of their own."""

from __future__ import annotations

from collections.abc import Sequence as Many

from tuner.emulator.http.served_engine import ServedEngine


class ServedReplicas:
    """Copies of a served engine behind one front; when one of them dies, so do the others."""

    def __init__(self, copies: Many[ServedEngine]) -> None:
        self.copies = tuple(copies)
        for copy in self.copies:
            copy.when_broken = self._break_down

    def least_busy(self) -> ServedEngine:
        """Return the copy that the next request goes to, as vLLM's front chooses it."""
        return min(self.copies, key=lambda copy: copy.engine.load)

    def energy_j(self) -> float:
        """Energy used up to now."""
        return sum(copy.energy_j() for copy in self.copies)

    def power_w(self) -> float:
        """Power at this moment."""
        return sum(copy.power_w() for copy in self.copies)

    def clock_mhz(self) -> float:
        """Mean SM clock at this moment."""
        return sum(copy.clock_mhz() for copy in self.copies) / len(self.copies)

    def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; False where a request is under way."""
        return all(copy.engine.reset_prefix_cache() for copy in self.copies)

    async def start(self) -> None:
        """Begin to step. Raises `LaunchRefusedError` if another server is on the GPUs."""
        for copy in self.copies:
            await copy.start()

    async def stop(self) -> None:
        """Stop stepping."""
        for copy in self.copies:
            await copy.stop()

    def _break_down(self) -> None:
        for copy in self.copies:
            copy.break_down()
