"""Log diagnosis: why a vLLM did not start, or died, in its own decisive line, and whose fault."""

from __future__ import annotations

import re
import signal

from tuner.records import Failure, FailureKind

_QUOTE_CHARS = 300
_LINE_CHARS = 4000  # of a line; some of the patterns take the square of its length

_PREFIX = re.compile(
    r"^(\([\w.-]+ pid=\d+\) )*"
    r"((?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^]]*\] ?)?"
)
_EXCEPTION = re.compile(r"^((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt))(?:: (.*))?$")
_USAGE = re.compile(r"^vllm[\w ]*: error: (.*)$")
_PYDANTIC = re.compile(r"^\d+ validation errors? for \w+$")
_DIED = re.compile(r"^Worker proc \S+ died unexpectedly|^Fatal Python error")

# What is raised because something else failed before it: never the root.
_CONSEQUENCE = re.compile(
    r"See (root cause|stack trace) above|See stack trace \(above\)|^RuntimeError: cancelled$"
    r"|EngineDeadError|^SystemExit|WorkerProc initialization failed|Engine process failed to start"
    r"|^(\w+\.)*CancelledError|^(EOFError|BrokenPipeError|KeyboardInterrupt)"
)

# Memory that these settings ask for and the device does not have.
_MEMORY = re.compile(
    r"No available memory for the cache blocks"
    r"|warming up sampler with \d+ dummy requests"
    r"|maximum number of tokens that can be stored in KV cache"
    r"|larger than the available KV cache memory"
    r"|OutOfMemoryError|CUDA (error: )?out of memory|DefaultCPUAllocator: can't allocate memory"
)

# Memory that somebody else holds, or the settings ask for: told apart by the device's total.
_ON_DEVICE = re.compile(
    r"(Available|Free) memory on (node|device) \S+ \([\d.]+/(?P<total>[\d.]+) GiB\)"
    r".*? is less than .*?(?P<asked>[\d.]+) GiB\)"
)

# Another process, the machine or the network: the same point deserves another try.
_MACHINE = re.compile(
    r"^AssertionError: Error in memory profiling"
    r"|Address already in use|EADDRINUSE|No space left on device|Disk quota exceeded"
    r"|Too many open files|Cannot allocate memory|can't start new thread"
    r"|CUDA-capable device\(s\) is/are busy|No CUDA GPUs are available|system not yet initialized"
    r"|uncorrectable ECC|GPU is lost|fallen off the bus|Driver/library version mismatch"
    r"|name resolution|Connection (refused|reset|aborted|timed out)",
    re.IGNORECASE,
)

# The GPU itself: NVIDIA's Xid catalog says of 48 (a double-bit error) and 79 (off the bus) that it
# has to be reset or replaced.
_BROKEN_GPU = re.compile(
    r"uncorrectable ECC|GPU is lost|fallen off the bus|\bXid\b.*: (48|79)\b|GPU requires reset",
    re.IGNORECASE,
)

# The engine has died; the process that answers for it may live on, and say that it is well.
_DEAD_ENGINE = re.compile(r"EngineDeadError|EngineCore encountered (a fatal error|an issue)")

# vLLM raises these while it checks what it was asked for.
_REFUSALS = re.compile(
    r"(Assertion|Attribute|GatedRepo|HFValidation|Import|Key|ModuleNotFound|NotImplemented|OS"
    r"|RepositoryNotFound|Type|Validation|Value)Error"
)


class VllmLog:
    """Reads the log of a vLLM server, its API process and its engine together."""

    def diagnose_launch(self, log_text: str, exit_code: int | None, timed_out: bool) -> Failure:
        """Say why a server never got ready, in one sentence that quotes the root of its log."""
        lines = _error_lines(log_text)
        known = _known_cause(lines)
        if known is not None:
            return known
        refusal = _refusal(lines)
        if refusal is not None and not timed_out:
            return Failure(FailureKind.CONFIGURATION, f"vLLM refused to start: {_quoted(refusal)}")
        ended = "was not ready before its deadline" if timed_out else _ended(exit_code)
        return Failure(FailureKind.UNSTABLE, f"vLLM {ended}{_last_words(lines, log_text)}")

    def diagnose_death(self, log_text: str, exit_code: int | None) -> Failure:
        """Say why a server that had been ready did not survive its load."""
        lines = _error_lines(log_text)
        ended = "lost its engine" if exit_code is None else _ended(exit_code)
        return Failure(
            FailureKind.UNSTABLE, f"vLLM {ended} under load{_last_words(lines, log_text)}"
        )

    def broken_gpu(self, log_text: str) -> str | None:
        """Return the line that says that a GPU needs a person, None if none does."""
        lines = _error_lines(log_text)
        return next((_quoted(line) for line in lines if _BROKEN_GPU.search(line)), None)

    def has_dead_engine(self, log_text: str) -> bool:
        """Say whether the engine behind a server that may still answer has died."""
        lines = _error_lines(log_text)
        return any(_DEAD_ENGINE.search(line) or _DIED.match(line) for line in lines)


def _error_lines(log_text: str) -> list[str]:
    """Return the lines of level ERROR, and those without a level, without vLLM's prefix."""
    lines = []
    for whole in log_text.splitlines():
        line = whole[:_LINE_CHARS]
        prefix = _PREFIX.match(line)
        if prefix is None or prefix["level"] in (None, "ERROR", "CRITICAL"):
            lines.append(line[prefix.end() if prefix else 0 :].rstrip())
    return lines


def _known_cause(lines: list[str]) -> Failure | None:
    """Return the failure that is known by its wording; memory before what follows from it."""
    for line in lines:
        on_device = _ON_DEVICE.search(line)
        if on_device and float(on_device["asked"]) <= float(on_device["total"]):
            return Failure(
                FailureKind.INFRASTRUCTURE, f"other processes hold the memory: {_quoted(line)}"
            )
        if on_device or _MEMORY.search(line):
            return Failure(
                FailureKind.CONFIGURATION,
                f"the configuration does not fit into memory: {_quoted(line)}",
            )
    for line in lines:
        if _MACHINE.search(line):
            return Failure(
                FailureKind.INFRASTRUCTURE, f"the machine could not run vLLM: {_quoted(line)}"
            )
    return None


def _refusal(lines: list[str]) -> str | None:
    """Return what vLLM objects to: its parser's message, or the error of the first check."""
    for number, line in enumerate(lines):
        usage = _USAGE.match(line)
        if usage:
            return usage[1]
        found = _EXCEPTION.match(line)
        if found is None or _CONSEQUENCE.search(line):
            continue
        if not _REFUSALS.fullmatch(found[1].rpartition(".")[2]):
            return None
        if _PYDANTIC.match(found[2] or ""):
            return _pydantic_problem(lines[number + 1 :])
        return line
    return None


def _pydantic_problem(following: list[str]) -> str:
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
        elif line.isidentifier():
            name = line
        else:
            break
    return "; ".join(problems)


def _last_words(lines: list[str], log_text: str) -> str:
    """Return the first error that no other one caused, else the log's last line."""
    errors = [line for line in lines if _EXCEPTION.match(line) and not _CONSEQUENCE.search(line)]
    errors += [line for line in lines if _DIED.match(line)]
    if errors:
        return f": {_quoted(errors[0])}"
    said = [line.strip() for line in log_text.splitlines() if line.strip()]
    return f"; the last line of its log: {_quoted(said[-1])}" if said else "; its log is empty"


def _ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "failed"
    if exit_code >= 0:
        return f"ended with code {exit_code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was killed by {names.get(-exit_code, f'signal {-exit_code}')}"


def _quoted(line: str) -> str:
    text = line.strip().partition(" See http")[0]
    return text if len(text) <= _QUOTE_CHARS else text[: _QUOTE_CHARS - 3] + "..."
