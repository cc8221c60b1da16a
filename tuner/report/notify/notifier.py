"""Notifier: tells every target once, when a run ends; a failing one never harms the night."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tuner.errors import InterruptedBySignalError, UsageError
from tuner.report.notify.message import Message, finished_message, stopped_message
from tuner.report.notify.target import target
from tuner.report.study_results import StudyResults
from tuner.study.listener import NullListener, Progress


class Notifier(NullListener):
    """Wraps a run: `finished` tells of its end, and leaving the block of an error or a signal.

    Nobody is told of a mistake in the command or of a Ctrl-C: whoever makes them is there.
    """

    def __init__(self, texts: Sequence[str], note: Callable[[str], None]) -> None:
        """Read the targets; raises `UsageError` before anything is started."""
        self._targets = [target(text) for text in texts]
        self._note = note
        self._study: str | None = None

    def study_started(self, name: str, progress: Progress) -> None:
        """Remember which study runs."""
        self._study = name

    def finished(self, study: StudyResults) -> None:
        """Tell that the budget is spent."""
        if self._targets:
            self._tell(finished_message(study))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, UsageError) or _is_ctrl_c(error):
            return
        if self._targets:
            self._tell(stopped_message(self._study, error))

    def _tell(self, message: Message) -> None:
        for one in self._targets:
            if (why := one.send(message)) is not None:
                self._note(f"{one.name} was not told that the run ended: {why}")


def _is_ctrl_c(error: BaseException) -> bool:
    if isinstance(error, InterruptedBySignalError):
        return error.exit_code == 128 + signal.SIGINT
    return isinstance(error, KeyboardInterrupt)
