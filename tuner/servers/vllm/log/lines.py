"""The lines of a vLLM log, without the forms that they take by version and by wrapper.

Seen in vLLM 0.6 to 0.32: `ERROR 07-24 08:26:01 engine.py:389]` (without a bracket),
`ERROR 12-13 10:41:28 [core.py:396]`, in front of it the process (`(EngineCore_DP0 pid=9)`,
`(VllmWorker rank=0 pid=9)`, Ray's `(RayWorkerWrapper pid=9, ip=10.0.0.1)`), all of it coloured in
files too (0.11 to 0.13, or `VLLM_LOGGING_COLOR=1`), torch's `[rank0]:` and `[default0]:`, and what
Docker, Kubernetes, journald, `srun --label` or `mpirun --tag-output` put before everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_CHARS = 4000  # of a line; some of the patterns take the square of its length

# Colours and other sequences of a terminal; syslog and JSON write the escape character in letters.
_ESCAPES = re.compile(
    r"(?:\x1b|#033|\\x1b|\\u001b|\\033)\[[0-?]*[ -/]*[@-~]"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[@-Z\\-_]?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")

_WRAPPER = re.compile(
    r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
    r"(?: std(?:out|err) [FP] | \[\w+\] \(\w+\) | \| | |$)"
    r"|^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ \S+\[\d+\]: "
    r"|^[\w.-]+(?:-\d+)?\s+\| "
    r"|^\d{1,4}: |^\[\d+,\d+\]<std(?:out|err)>: ?|^\[pod/[\w./-]+\] "
)
_PROCESS = re.compile(r"^\((?P<name>[\w.:-]+(?: \w+=[\w.:-]+)*? pid=\d+)(?:, ip=[^)\s]*)?\) ?")
_RANK = re.compile(r"^\[rank\d+\]:\s?|^\[default\d+\]:")
_LEVEL = re.compile(
    r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:.,]+ "
    r"(?P<source>\[[^]]*\]|[\w./]+:\d+\]) ?"
)
_OTHER_LEVEL = re.compile(
    r"^(?:(?:- )?[\w.]+ - )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)( -|:)\s+"
)
_GLOG = re.compile(r"^\[?(?P<level>[IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ [^]]*\]\s?")
_GLOG_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: the process that wrote it ("" if it does not say), its level if any, its text."""

    process: str
    level: str | None
    source: str
    text: str

    @property
    def may_explain(self) -> bool:
        """Whether it may say why a server failed: an error, or what stands outside of logging."""
        return self.level in (None, "ERROR", "CRITICAL")


def log_lines(log_text: str) -> list[LogLine]:
    """Return the lines of a log, without colours, times and prefixes."""
    plain = _CONTROLS.sub("", _ESCAPES.sub("", log_text))
    return [_log_line(line[:_LINE_CHARS].rstrip()) for line in plain.splitlines()]


def _log_line(line: str) -> LogLine:
    process, level, source = "", None, ""
    for pattern in (_WRAPPER, _RANK):
        line = _without(pattern, line)
    while found := _PROCESS.match(line):
        process = found["name"]
        line = line[found.end() :]
    line = _without(_RANK, line)
    if found := _LEVEL.match(line):
        level, source = found["level"], found["source"]
    elif found := _GLOG.match(line):
        level = _GLOG_LEVELS[found["level"]]
    elif found := _OTHER_LEVEL.match(line):
        level = found["level"]
    return LogLine(process, level, source, line[found.end() :] if found else line)


def _without(pattern: re.Pattern[str], line: str) -> str:
    found = pattern.match(line)
    return line[found.end() :] if found else line
