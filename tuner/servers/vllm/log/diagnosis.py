"""Log diagnosis: why a vLLM did not start, or died, in its own decisive line, and whose fault."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence

from tuner.records import Failure, FailureKind
from tuner.servers.vllm.log.causes import (
    BROKEN_GPU,
    Cause,
    is_refusal,
    machine_cause,
    memory_cause,
)
from tuner.servers.vllm.log.errors import LoggedError, deciding_chains, logged_errors
from tuner.servers.vllm.log.lines import LogLine, log_lines

_QUOTE_CHARS = 300

_USAGE = re.compile(r"^vllm[\w -]*: error: (.*)$")
_PYDANTIC = re.compile(r"\d+ validation errors? for [\w\[\], ]+$")
_DIED = re.compile(
    r"^(Worker proc|Engine core proc|RayWorkerProc|DP Coordinator)\b.* died unexpectedly"
    r"|^Fatal Python error|^!+ Segfault|^Segmentation fault"
)

# The engine has died; the process that answers for it may live on, and say that it is well.
_DEAD_ENGINE = re.compile(r"EngineDeadError|EngineCore encountered (a fatal error|an issue)")

# How the API server reports its engines: {'EngineCore_DP0': -9}, by the number of the signal.
_FAILED_PROCESSES = re.compile(r"Failed core proc\(s\): \{(.*?)\}")
_EXIT = re.compile(r"'([\w.:-]+)': (-?\d+)")
_PID = re.compile(r"pid=(\d+)")

# What vLLM, or what it stands on, went on after.
_IN_PASSING = re.compile(r"\bretry|retrying|thrown while requesting|warning", re.IGNORECASE)


class VllmLog:
    """Reads the log of a vLLM server, its API process and its engine together."""

    def diagnose_launch(self, log_text: str, exit_code: int | None, timed_out: bool) -> Failure:
        """Say why a server never got ready, in one sentence that quotes the root of its log."""
        log = _Log(log_text)
        known = log.known_cause()
        if known is not None:
            cause, quoted = known
            return Failure(cause.kind, f"{cause.says}: {quoted}")
        refusal = log.refusal()
        if refusal is not None and not timed_out:
            return Failure(FailureKind.CONFIGURATION, f"vLLM refused to start: {_quoted(refusal)}")
        ended = "was not ready before its deadline" if timed_out else _ended(exit_code)
        return Failure(FailureKind.UNSTABLE, f"vLLM {ended}{log.last_words()}")

    def diagnose_death(self, log_text: str, exit_code: int | None) -> Failure:
        """Say why a server that had been ready did not survive its load."""
        ended = "lost its engine" if exit_code is None else _ended(exit_code)
        return Failure(
            FailureKind.UNSTABLE, f"vLLM {ended} under load{_Log(log_text).last_words()}"
        )

    def broken_gpu(self, log_text: str) -> str | None:
        """Return the line that says that a GPU needs a person, None if none does."""
        texts = (line.text for line in log_lines(log_text) if line.may_explain)
        return next((_quoted(text) for text in texts if BROKEN_GPU.search(text)), None)

    def has_dead_engine(self, log_text: str) -> bool:
        """Say whether the engine behind a server that may still answer has died."""
        texts = (line.text for line in log_lines(log_text) if line.may_explain)
        return any(_DEAD_ENGINE.search(text) or _DIED.match(text) for text in texts)


class _Log:
    """The lines of one log, its errors, and those that may be the root."""

    def __init__(self, log_text: str) -> None:
        self._lines = log_lines(log_text)
        self._errors = logged_errors(self._lines)
        self._chains = deciding_chains(self._errors)
        self._own_pids = {int(pid) for line in self._lines for pid in _PID.findall(line.process)}

    def known_cause(self) -> tuple[Cause, str] | None:
        """Return the cause that is known by its wording; memory before what follows from it."""
        for error in (error for chain in self._chains for error in chain):
            if cause := memory_cause(self._with_nccl(error), self._own_pids):
                return cause, _quoted(self._with_nccl(error), cause.told_by)
        for error in self._chains[0] if self._chains else ():
            if cause := machine_cause(self._with_nccl(error), error.bare_name):
                return cause, _quoted(self._with_nccl(error), cause.told_by)
        if self._chains or self._usage() is not None:
            return None
        for line in self._lines:
            cause = memory_cause(line.text) or machine_cause(line.text)
            if cause and line.may_explain and not _IN_PASSING.search(line.text):
                return cause, _quoted(line.text, cause.told_by)
        return None

    def refusal(self) -> str | None:
        """Return what vLLM objects to: its parser's message, or the error of the first check."""
        usage = self._usage()
        if usage is not None:
            return usage
        for chain in self._chains[:1]:
            if not is_refusal(chain[0].bare_name):
                return None
            told = [error for error in chain if is_refusal(error.bare_name)][-1]
            problems = _pydantic_problem(told.details) if _PYDANTIC.search(told.text) else ""
            return problems or told.text
        return None

    def last_words(self) -> str:
        """Return the first error that no other one caused, else the log's last line."""
        if self._chains:
            return f": {_quoted(self._with_nccl(self._chains[0][0]))}"
        killed = self._killed()
        if killed:
            return f": {killed}"
        died = next((line.text for line in self._lines if _DIED.match(line.text)), None)
        if died:
            return f": {_quoted(died)}"
        said = [line.text for line in self._lines if line.text.strip()]
        return f"; the last line of its log: {_quoted(said[-1])}" if said else "; its log is empty"

    def _usage(self) -> str | None:
        """Return the message of vLLM's parser, with the lines that it goes on in."""
        for number, line in enumerate(self._lines):
            usage = _USAGE.match(line.text)
            if usage:
                following = [after.text for after in self._lines[number + 1 :]]
                problems = _pydantic_problem(following) if _PYDANTIC.search(usage[1]) else ""
                return f"{usage[1]}: {problems}" if problems else usage[1]
        return None

    def _killed(self) -> str | None:
        """Return which processes a signal ended, as the API server reports it."""
        for line in reversed(self._lines):
            found = _FAILED_PROCESSES.search(line.text)
            if found:
                killed = [(name, -int(code)) for name, code in _EXIT.findall(found[1])]
                killed = [(name, number) for name, number in killed if number > 0]
                return "; ".join(_killed_by(name, number) for name, number in killed) or None
        return None

    def _with_nccl(self, error: LoggedError) -> str:
        """Return an error's whole message; one of NCCL's with the warning that explains it."""
        if "NCCL" not in error.whole:
            return error.whole
        return " ".join((error.whole, *_nccl_warnings(self._lines)))


def _nccl_warnings(lines: Sequence[LogLine]) -> Iterator[str]:
    for line in lines:
        _, found, text = line.text.partition("NCCL WARN ")
        if found and (memory_cause(f"{found}{text}") or machine_cause(text)):
            yield f"({found.strip()} {text.strip()})"
            return


def _pydantic_problem(following: Sequence[str]) -> str:
    """Join the problems of a validation error: each field's name, if any, and the message."""
    problems = []
    name = ""
    for line in following:
        if line.startswith("    "):  # where to read more
            continue
        if line.startswith("  "):
            message = line.strip().partition(" [type=")[0].removeprefix("Value error, ")
            problems.append(f"{name}: {message}" if name else message)
            name = ""
        elif re.fullmatch(r"[\w.\[\]-]+", line):
            name = line
        else:
            break
    return "; ".join(problems)


def _killed_by(name: str, number: int) -> str:
    said = f"its process {name} was killed by {_signal_name(number)}"
    return f"{said}, as a host does that runs out of memory" if number == signal.SIGKILL else said


def _ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "failed"
    if exit_code >= 0:
        return f"ended with code {exit_code}"
    return f"was killed by {_signal_name(-exit_code)}"


def _signal_name(number: int) -> str:
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")


def _quoted(line: str, told_by: str = "") -> str:
    """Return a line, shortened if it is long; the words that told are kept."""
    text = " ".join(line.split()).partition(" See http")[0]
    if len(text) <= _QUOTE_CHARS:
        return text
    told = text.find(told_by) if told_by else -1
    if told + len(told_by) <= _QUOTE_CHARS - 3:
        return text[: _QUOTE_CHARS - 3] + "..."
    head = text[: _QUOTE_CHARS // 3]
    rest = text[max(told - 20, len(head)) :]
    left = _QUOTE_CHARS - len(head) - len(" ... ")
    return f"{head} ... {rest if len(rest) <= left else rest[: left - 3] + '...'}"
