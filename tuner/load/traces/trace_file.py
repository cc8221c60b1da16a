"""The file of a trace: gzipped JSON lines, one request each, read and written as a stream."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from tuner.errors import UsageError
from tuner.records import Message, Prompt

MAX_TOKENS = 2**20
MAX_LINE_BYTES = 16 * 2**20
_MAX_HASH_ID = 2**62
_MAX_TIME_S = 1e10
_SHOWN = 60

_FIELDS = {
    "arrival_s",
    "prompt_tokens",
    "prompt",
    "messages",
    "output_tokens",
    "hash_ids",
}


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace.

    Its prompt is text (or messages), or so many tokens, of which blocks with the same hash id are
    the same.
    """

    arrival_s: float | None
    output_tokens: int
    prompt_tokens: int | None = None
    prompt: Prompt | None = None
    hash_ids: tuple[int, ...] = ()


class BadRowError(ValueError):
    """A malformed row; the reader, which knows the line, turns it into a `UsageError`."""


def at_line(path: Path, line: int, problem: object) -> UsageError:
    """Return the error for one line of a file."""
    return UsageError(f"'{path}', line {line}: {problem}")


def at_item(path: Path, number: int, problem: object) -> UsageError:
    """Return the error for one item of a file, counted from 1."""
    return UsageError(f"'{path}', item {number}: {problem}")


def shown(value: object) -> str:
    """Return a value as it is named in an error."""
    try:
        text = repr(value)
    except ValueError:  # an integer too long to be printed
        return "a number of thousands of digits"
    except RecursionError:
        return "something nested too deeply to be shown"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def whole(value: object, what: str, least: int, most: int) -> int:
    """Return a JSON number as an int within [least, most], or raise `BadRowError`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRowError(
            f"{what} must be a whole number from {least} to {most}, found {shown(value)}"
        )
    return value


def tokens(value: object, what: str) -> int:
    """Return a length in tokens, or raise `BadRowError`."""
    return whole(value, what, 1, MAX_TOKENS)


def hash_ids(value: object, what: str) -> tuple[int, ...]:
    """Return a list of hash ids, or raise `BadRowError`."""
    if not isinstance(value, list):
        raise BadRowError(f"{what} must be a list of whole numbers, found {shown(value)}")
    return tuple(whole(one, what, 0, _MAX_HASH_ID) for one in value)


def time_s(value: object, what: str, unit_s: float = 1.0) -> float:
    """Return a time in seconds, or raise `BadRowError`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Compared before it is multiplied: an integer can be too large for a float.
    if not number or not 0 <= cast(float, value) <= _MAX_TIME_S / unit_s:
        raise BadRowError(f"{what} must be a time of at least 0, found {shown(value)}")
    return cast(float, value) * unit_s


def moment_s(text: str) -> float:
    """Return the seconds since 1970 of an ISO 8601 time, in UTC unless it has a zone.

    Raises `ValueError`.
    """
    moment = datetime.fromisoformat(text)
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from None


def text(value: object, what: str) -> str:
    """Return a text that is not empty, or raise `BadRowError`."""
    if not isinstance(value, str) or not value:
        raise BadRowError(f"{what} must be a text that is not empty, found {shown(value)}")
    # Half a character, as broken logs have them, cannot be sent.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def messages(value: object) -> tuple[Message, ...]:
    """Return a list of messages, or raise `BadRowError`."""
    if not isinstance(value, list) or not value:
        raise BadRowError(f"messages must be a list of messages, found {shown(value)}")
    found = []
    for one in value:
        if not isinstance(one, dict):
            raise BadRowError(f"a message must hold role and content, found {shown(one)}")
        role, content = text(one.get("role"), "role"), text(one.get("content"), "content")
        found.append(Message(role, content))
    return tuple(found)


def json_value(line: str) -> Any:
    """Return the JSON value of a line, or raise `BadRowError`."""
    try:
        return json.loads(line)
    except RecursionError:
        raise BadRowError("nested too deeply") from None
    except ValueError as error:
        raise BadRowError(f"not JSON ({error}): {shown(line)}") from None


def json_object(line: str) -> dict[str, Any]:
    """Return the JSON object of a line, or raise `BadRowError`."""
    value = json_value(line)
    if not isinstance(value, dict):
        raise BadRowError(f"expected a JSON object, found {shown(value)}")
    return value


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line that is not empty; `.gz` is unpacked.

    Raises `UsageError` for what cannot be read.
    """
    number = 0
    try:
        with open_binary(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise at_line(path, number, f"longer than {MAX_LINE_BYTES} bytes")
                decoded = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if decoded:
                    yield number, decoded
    except UnicodeDecodeError as error:
        raise at_line(path, number, f"not UTF-8 ({error.reason})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


def open_binary(path: Path) -> BinaryIO:
    """Open a file that may be gzipped."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def unreadable(path: Path, error: Exception) -> UsageError:
    """Return the error for a file that cannot be read."""
    reason = getattr(error, "strerror", None) or error
    return UsageError(f"cannot read '{path}': {reason}")


def read_trace(path: Path) -> Iterator[TraceRow]:
    """Yield the rows of a trace file; raises `UsageError` that names the line."""
    last_s = 0.0
    timed: bool | None = None
    for number, line in read_lines(path):
        try:
            row = _row(json_object(line))
            if timed is None:
                timed = row.arrival_s is not None
            if timed is not (row.arrival_s is not None):
                raise BadRowError("arrival_s must stand in every line or in none")
            if row.arrival_s is not None:
                if row.arrival_s < last_s:
                    raise BadRowError(
                        f"arrival_s {row.arrival_s:g} is before that of the line before"
                    )
                last_s = row.arrival_s
        except BadRowError as error:
            raise at_line(path, number, error) from None
        yield row


def _row(fields: dict[str, Any]) -> TraceRow:
    if unknown := sorted(fields.keys() - _FIELDS):
        raise BadRowError(
            f"there is no field {shown(unknown[0])}; allowed: {', '.join(sorted(_FIELDS))}"
        )
    prompts = [name for name in ("prompt_tokens", "prompt", "messages") if name in fields]
    if len(prompts) != 1:
        raise BadRowError("write one of prompt_tokens, prompt and messages")
    arrival_s = time_s(fields["arrival_s"], "arrival_s") if "arrival_s" in fields else None
    output_tokens = tokens(fields.get("output_tokens"), "output_tokens")
    if "prompt_tokens" in fields:
        return TraceRow(
            arrival_s,
            output_tokens,
            prompt_tokens=tokens(fields["prompt_tokens"], "prompt_tokens"),
            hash_ids=hash_ids(fields.get("hash_ids", []), "hash_ids"),
        )
    if "hash_ids" in fields:
        raise BadRowError("hash_ids belong to prompt_tokens, not to a text")
    if "prompt" in fields:
        return TraceRow(arrival_s, output_tokens, prompt=text(fields["prompt"], "prompt"))
    return TraceRow(arrival_s, output_tokens, prompt=messages(fields["messages"]))


def _line(row: TraceRow) -> bytes:
    fields: dict[str, Any] = {}
    if row.arrival_s is not None:
        fields["arrival_s"] = row.arrival_s
    if isinstance(row.prompt, str):
        fields["prompt"] = row.prompt
    elif row.prompt is not None:
        fields["messages"] = [{"role": m.role, "content": m.content} for m in row.prompt]
    else:
        fields["prompt_tokens"] = row.prompt_tokens
    fields["output_tokens"] = row.output_tokens
    if row.hash_ids:
        fields["hash_ids"] = row.hash_ids
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def write_trace(file: BinaryIO, rows: Iterable[TraceRow], limit: int | None = None) -> int:
    """Write the rows, at most `limit`; the same rows give the same bytes. Returns their number."""
    count = 0
    # Neither name nor time goes into the gzip header.
    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        for row in islice(rows, limit):
            packed.write(_line(row))
            count += 1
    return count
