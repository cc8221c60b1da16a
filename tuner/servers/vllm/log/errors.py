"""The errors in a vLLM log: what was raised, by which process, after what, and what ended it.

A log can hold many errors and only one reason. What was raised because another process had failed
is a consequence. What a process went on after was a hiccup. Of the rest, an error that vLLM itself
calls the end of a process decides; else the last that each process raised; and of several
processes the one that failed first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tuner.servers.vllm.log.lines import LogLine

_DETAIL_LINES = 12  # of a message that goes on below its first line

_TRACEBACK = re.compile(r"^(?:[\w ]+: )?Traceback \(most recent call last\):")
_GROUP = re.compile(r"^\s*(?:[|+]\s?-*\s?)+")  # the frame that Python draws around a group
_NAME = r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*"
_NAMED = re.compile(
    rf"^(?!nccl)(?P<name>(?:{_NAME}?(?:Error|Exception|Exit|Interrupt|OutOfResources)|"
    rf"(?:\w+\.)+(?:\w*Timeout|\w*Failed|\w*Died)|NVMLError_\w+)(?:\(\w+\))?)(?:: ?(?P<says>.*))?$"
)
_LAST_LINE = re.compile(rf"^(?P<name>{_NAME}(?:\(\w+\))?)(?::(?: (?P<says>.*))?)?$")
_ABORTED = re.compile(r"^(?:terminate called after throwing|  what\(\):)")
_LINK = re.compile(
    r"^(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred)"
)
_IGNORED = re.compile(r"^(?:Exception ignored in|Exception in thread)")
_END_OF_PROCESS = re.compile(
    r"failed to start|encountered a fatal error|hit an exception|^Process \S+:$|died unexpectedly"
)
_RETRIED = re.compile(r"\b(?:retry(?:ing)?\b|will (?:be )?retried|falling back|fall back)", re.I)
_SHUTS_DOWN = re.compile(r"shut|stop|exit|terminat|clean|destroy|parent process", re.I)

# What is raised because something else failed before it: never the root.
_CONSEQUENCE = re.compile(
    r"See (root cause|stack trace) above|See stack trace \(above\)|See stack trace for the root"
    r"|^RuntimeError: cancelled$|EngineDeadError|^SystemExit|initialization failed due to"
    r"|WorkerProc initialization failed|Engine process failed to start"
    r"|EngineGenerateError|RayTaskError|ActorDiedError|Engine core initialization failed"
    r"|^(\w+\.)*(CancelledError|BrokenProcessPool)|^(EOFError|BrokenPipeError|KeyboardInterrupt)"
)

# What one process says of another that has gone: it decides only if nobody says more.
_PEER_GONE = re.compile(
    r"Connection (reset|closed|aborted)( by peer)?|closed by peer|ncclRemoteError|remote process"
    r"|ProcessGroup|TCPStore|Broken pipe|heartbeat|\bgloo\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class LoggedError:
    """One error: its name, its message, and the lines that the message goes on in."""

    name: str
    text: str  # the line, name and message
    details: tuple[str, ...]
    process: str
    number: int  # of its line
    chain: int  # errors of one chain were raised while the others were handled
    ends_process: bool = False
    hiccup: bool = False

    @property
    def bare_name(self) -> str:
        """The name without modules: `ConnectionError` of `requests.exceptions.ConnectionError`."""
        return self.name.partition("(")[0].rpartition(".")[2]

    @property
    def whole(self) -> str:
        """The message with the lines that it goes on in, as one line."""
        return " ".join((self.text, *(line.strip() for line in self.details)))

    @property
    def is_consequence(self) -> bool:
        """Whether it only reports that something else failed before."""
        return _CONSEQUENCE.search(self.text) is not None

    @property
    def only_misses_a_peer(self) -> bool:
        """Whether it only reports that another process has gone."""
        return _PEER_GONE.search(self.whole) is not None


def logged_errors(lines: Sequence[LogLine]) -> list[LoggedError]:
    """Return every error of a log in the order of its lines; workers may have mixed theirs."""
    of_process: dict[str, list[tuple[int, LogLine]]] = {}
    for number, line in enumerate(lines):
        of_process.setdefault(line.process, []).append((number, line))
    found = [error for numbered in of_process.values() for error in _of_process(numbered)]
    return sorted(found, key=lambda error: error.number)


def deciding_chains(errors: Iterable[LoggedError]) -> list[list[LoggedError]]:
    """Return the chains that may be the root, the likeliest first; each in its own order."""
    roots = [error for error in errors if not error.is_consequence and not error.hiccup]
    pool = [error for error in roots if error.ends_process] or roots
    pool = [error for error in pool if not error.only_misses_a_peer] or pool
    last_chain = {error.process: error.chain for error in pool}
    first_ended: dict[str, int] = {}
    for error in pool:
        if error.ends_process:
            first_ended.setdefault(error.process, error.chain)
    chosen = {**last_chain, **first_ended}
    chains: dict[int, list[LoggedError]] = {}
    for error in pool:
        if chosen[error.process] == error.chain:
            chains.setdefault(error.chain, []).append(error)
    return list(chains.values())


def _of_process(numbered: Sequence[tuple[int, LogLine]]) -> Iterator[LoggedError]:
    """Yield the errors of one process; what it logged after them tells hiccups."""
    last_progress = max(
        (
            number
            for number, line in numbered
            if line.process and line.level == "INFO" and not _SHUTS_DOWN.search(line.text)
        ),
        default=-1,
    )
    lines = [(number, line) for number, line in numbered if line.may_explain]
    chain, linked, ends, in_traceback, ignored = -1, False, False, False, False
    position = 0
    while position < len(lines):
        number, line = lines[position]
        text = _GROUP.sub("", line.text) if line.text.lstrip().startswith(("|", "+")) else line.text
        position += 1
        if _LINK.match(text):
            linked = True
            continue
        if _TRACEBACK.match(text):
            in_traceback = True
            ends = ends or _END_OF_PROCESS.search(text) is not None
            continue
        if _IGNORED.match(text):
            ignored = True
            continue
        if in_traceback and (not text or text[0].isspace() or text.startswith('File "')):
            continue
        found = (_LAST_LINE if in_traceback else _NAMED).match(text)
        in_traceback = False
        if found is None:
            if not _ABORTED.match(text):
                ends = ends or _END_OF_PROCESS.search(text) is not None
                if text.strip():
                    linked, ignored = False, False
                continue
            name = "abort"
        else:
            name = found["name"]
        details = _details(lines, position, line)
        position += len(details)
        chain = chain if linked and chain >= 0 else number
        error = LoggedError(name, text.strip(), details, line.process, number, chain)
        hiccup = ignored or _RETRIED.search(text) is not None
        yield replace(
            error,
            ends_process=ends and not hiccup,
            hiccup=hiccup or (not ends and number < last_progress),
        )
        linked, ignored = False, False


def _details(
    lines: Sequence[tuple[int, LogLine]], position: int, first: LogLine
) -> tuple[str, ...]:
    """Return the lines below an error's that belong to its message."""
    details: list[str] = []
    for _, line in lines[position : position + _DETAIL_LINES]:
        text = line.text
        if (
            not text.strip()
            or (line.level, line.source) != (first.level, first.source)
            or any(p.match(text) for p in (_TRACEBACK, _NAMED, _LINK, _IGNORED))
            or _END_OF_PROCESS.search(text)
        ):
            break
        details.append(text)
    return tuple(details)
