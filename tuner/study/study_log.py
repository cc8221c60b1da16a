"""Study log: every event of a study as one JSON object per line, for programs to read.

The store keeps a short list of events for people. This log keeps all events with their details.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from tuner.host.files.private import open_private, private_folder
from tuner.host.redaction import redacted, redacted_json
from tuner.records import Failure, LoadSnapshot, Measurement
from tuner.store.log.now_file import NowFile
from tuner.study.confirmation.plan import Step
from tuner.study.listener import Listener, Progress
from tuner.study.proposals.proposals import Proposal

LARGEST_BYTES = 10 * 2**20
OLDER_FILES = 3


class _QuietHandler(RotatingFileHandler):
    """A log that cannot be written (a full disk, for example) must not end the study."""

    def _open(self) -> TextIOWrapper:
        """Open the file, which only this user can read and which is never a link."""
        descriptor = open_private(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line."""


class StudyLog:
    """Writes lines with `time` (UTC), `monotonic_s`, `event`, `trial` and `facts`; no secrets."""

    def __init__(self, path: Path, *, largest_bytes: int = LARGEST_BYTES) -> None:
        self.path = path
        with suppress(OSError):
            private_folder(path.parent)
            os.close(open_private(path, os.O_WRONLY | os.O_APPEND))
        self._handler = _QuietHandler(
            path, maxBytes=largest_bytes, backupCount=OLDER_FILES, encoding="utf-8", delay=True
        )

    def write(self, event: str, trial: int | None = None, **facts: Any) -> None:
        """Add a line; `facts` must be JSON-serialisable."""
        line = {
            "time": datetime.now(UTC).isoformat(),
            "monotonic_s": round(time.monotonic(), 6),
            "event": event,
            "trial": trial,
            "facts": redacted_json(facts),
        }
        text = json.dumps(line, ensure_ascii=False, default=str)
        text = text.encode(errors="replace").decode()  # a lone surrogate of a server's log
        record = logging.LogRecord("tuner", logging.INFO, "", 0, text, None, None)
        self._handler.handle(record)

    def close(self) -> None:
        """Close the file; lines that did not fit on a full disk are dropped."""
        with suppress(OSError):
            self._handler.close()


class LoggedListener:
    """A listener that logs each event and passes it on."""

    def __init__(self, listener: Listener, log: StudyLog, now_file: NowFile) -> None:
        self._listener = listener
        self._log = log
        self._now_file = now_file

    def study_started(self, name: str, progress: Progress) -> None:
        """The search begins or resumes."""
        self._log.write("study_started", study=name, **_budget(progress))
        self._listener.study_started(name, progress)

    def trial_started(self, proposal: Proposal) -> None:
        """An evaluation starts."""
        self._log.write(
            "trial_started",
            proposal.number,
            configuration=proposal.configuration.to_json(),
            baseline=proposal.baseline,
            attempt=proposal.attempt,
        )
        self._listener.trial_started(proposal)

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        """An evaluation ended and Optuna was told."""
        self._log.write("trial_ended", proposal.number, **_outcome(result), **_budget(progress))
        self._listener.trial_ended(proposal, result, progress)

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """A trial's configuration was measured again."""
        self._log.write("repeat_ended", step.trial.number, why=step.kind.value, **_outcome(result))
        self._listener.repeat_ended(step, result)

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        """Progress of the load; not logged, `tuner status` reads the latest from a file."""
        self._now_file.write(snapshot)
        self._listener.load_sampled(snapshot)

    def note(self, message: str) -> None:
        """A message for the user."""
        message = redacted(message)
        self._log.write("note", message=message)
        self._listener.note(message)


def _budget(progress: Progress) -> Mapping[str, Any]:
    return {"trials": progress.trials, "spent_s": round(progress.spent_s, 3)}


def _outcome(result: Measurement | Failure) -> Mapping[str, Any]:
    if isinstance(result, Failure):
        return {
            "failure": result.kind.value,
            "reason": result.reason,
            "log": None if result.log_path is None else str(result.log_path),
        }
    return {"metrics": dict(result.metrics), "ended_early": result.ended_early}
