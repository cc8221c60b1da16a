"""Watched: a run whose process a library may end, with another process to say so.

Ray ends a program that has lost the node it runs on or the cluster's head, at once, with exit code
1 and at most a message in the log of the node. No exception reaches the program.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from tuner.errors import InterruptedBySignalError, OperatorNeededError, TunerError

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_LEAVE_S = 30.0  # for a library to end its own threads and connections
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def watched(ended_by_library: str) -> Iterator[None]:
    """Go on in a child process; this process waits for it, and ends with the same exit code.

    Signals are passed on, and the child dies with this process. Raises, in this process,
    `OperatorNeededError` with the sentence if the child ended before the work within had.
    """
    told, tells = os.pipe()
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # one may come with the fork
    child = os.fork()
    if child:
        os.close(tells)
        _pass_on_to(child)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _end_as(child, told, ended_by_library)
    os.close(told)
    _die_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = 1
    try:
        yield
        code = 0
    except (TunerError, InterruptedBySignalError) as error:
        code = error.exit_code
        raise
    finally:
        sys.stdout.flush()
        os.write(tells, bytes([code]))


def _pass_on_to(child: int) -> None:
    def pass_on(number: int, _: FrameType | None) -> None:
        os.kill(child, number)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)  # what a terminal sends twice counts once there


def _end_as(child: int, told: int, ended_by_library: str) -> NoReturn:
    """Wait until the child has ended; one that has said how may take a moment to leave."""
    ended = os.pidfd_open(child)
    said = b""
    if told in select.select([told, ended], [], [])[0]:
        said = os.read(told, 1)
    if said and not select.select([ended], [], [], _LEAVE_S)[0]:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if said:
        sys.exit(said[0])  # also if it was ended while it left the cluster
    code = os.waitstatus_to_exitcode(status)
    if code == 1:
        raise OperatorNeededError(ended_by_library)
    sys.exit(code if code >= 0 else 128 - code)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)
