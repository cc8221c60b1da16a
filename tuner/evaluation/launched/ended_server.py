"""Ended server: why it did not start, or did not survive, and whether a GPU needs a person."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.redaction import without_secrets
from tuner.records import Failure, FailureKind
from tuner.servers.launch import LaunchFailedError, PortTakenError, RunningServer, read_log
from tuner.servers.server import LogReader


def require_whole_gpu(log: LogReader, log_path: Path | None) -> None:
    """Raise `OperatorNeededError` if a server's log says that a GPU is broken: never retry then."""
    said = None if log_path is None else log.broken_gpu(read_log(log_path))
    if said is not None:
        raise OperatorNeededError(
            f"a GPU needs a person, so nothing more is measured on it: {said} (log: {log_path}); "
            "see `nvidia-smi` and `dmesg` (Xid 48 and 79 need a reset or another GPU), then "
            "`tuner resume`"
        )


def launch_failure(log: LogReader, error: LaunchFailedError | PreflightError) -> Failure:
    """Return what an evaluation without a server failed of; raises as `require_whole_gpu`.

    A port that is taken for a moment, or a program that is gone, must not end the study.
    """
    if isinstance(error, LaunchFailedError):
        require_whole_gpu(log, error.failure.log_path)
        return error.failure
    passes = isinstance(error, PortTakenError)
    return Failure(FailureKind.BUSY if passes else FailureKind.INFRASTRUCTURE, str(error))


def death_of(log: LogReader, server: RunningServer, exit_code: int | None) -> Failure:
    """Say why a server that had been ready did not survive; without secrets."""
    death = log.diagnose_death(read_log(server.log_path), exit_code)
    reason = without_secrets(death.reason, os.environ)
    return dataclasses.replace(death, reason=reason, log_path=server.log_path)
