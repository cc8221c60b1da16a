"""The items of a JSON array, read one by one with ijson: any file in the memory of one item."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson
from ijson.common import ObjectBuilder

from tuner.load.traces.trace_file import BadRowError, at_item, open_binary, shown, unreadable

MAX_ITEM_BYTES = 16 * 2**20
_MAX_DEPTH = 100
_DEEPER = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}


def json_items(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the number of each item, from 1, and the item; `.gz` is unpacked.

    Raises `UsageError` that names the item for what is no array of JSON values.
    """
    number = 1
    try:
        with open_binary(path) as file:
            for item in _items(_OneItemAtATime(file)):
                yield number, item
                number += 1
    except (BadRowError, ijson.JSONError, ValueError) as error:
        problem = error if isinstance(error, BadRowError) else f"no JSON array ({_reason(error)})"
        raise at_item(path, number, problem) from None
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


class _OneItemAtATime:
    """A file without its byte order mark, of which no item may be longer than the limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._is_begun = False
        self._read_bytes = 0  # since the last item ended

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._read_bytes += len(data)
        if self._read_bytes > MAX_ITEM_BYTES:
            raise BadRowError(f"longer than {MAX_ITEM_BYTES} bytes")
        if data and not self._is_begun:
            self._is_begun = True
            return data.removeprefix(codecs.BOM_UTF8)
        return data

    def item_ended(self) -> None:
        self._read_bytes = 0


def _items(source: _OneItemAtATime) -> Iterator[Any]:
    # not ijson.items: it holds the path of every level, and a file of brackets fills the memory
    events = ijson.basic_parse(source, use_float=True)
    event, value = next(events, ("", ""))
    if event != "start_array":
        found = "an object" if event == "start_map" else shown(value)
        raise BadRowError(f"expected a JSON array ([ ... ]), found {found}")
    depth, builder = 0, ObjectBuilder()
    for event, value in events:
        depth += _DEEPER.get(event, 0)
        if depth < 0:
            continue  # the end of the array; what follows it is an error of its own
        if depth > _MAX_DEPTH:
            raise BadRowError(f"nested more than {_MAX_DEPTH} levels deep")
        builder.event(event, value)
        if depth == 0:
            source.item_ended()
            yield builder.value
            builder = ObjectBuilder()


def _reason(error: Exception) -> str:
    """Return the first line, without the picture of the place below it."""
    said = error.args[0] if error.args else error
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return text.splitlines()[0] if text else type(error).__name__
