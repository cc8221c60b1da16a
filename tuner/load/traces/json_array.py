"""A JSON array read item by item: a file of any size in the memory of a few items."""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tuner.errors import UsageError
from tuner.load.traces.trace_file import at_line, open_binary, shown, unreadable

MAX_ITEM_CHARACTERS = 16 * 2**20
_READ_BYTES = 2**20
_NUMBER_GOES_ON = len("e-") + 1
_SPACE = " \t\r\n"


def read_array(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the line on which each item begins, and the item.

    Raises `UsageError` that names the line for what is no array of JSON values.
    """
    try:
        with open_binary(path) as file:
            yield from _Reader(path, file).items()
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False

    def items(self) -> Iterator[tuple[int, Any]]:
        first = self._next_character()
        if first != "[":
            raise self._error(f"expected a JSON array ([ ... ]), found {shown(first)}")
        self._take(1)
        if self._next_character() == "]":
            self._take(1)
            self._expect_end()
            return
        while True:
            self._next_character()
            line = self._line
            yield line, self._item()
            after = self._next_character()
            if after not in (",", "]"):
                raise self._error(f"expected a comma or ], found {shown(after)}")
            self._take(1)
            if after == "]":
                self._expect_end()
                return

    def _item(self) -> Any:
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except RecursionError:
                raise self._error("nested too deeply") from None
            except ValueError as error:
                if not self._read_more():
                    raise self._error(f"not JSON ({_reason(error)})") from None
                continue
            # A number may go on beyond what is held, also where it stops at "." or "e-".
            if len(self._text) - end < _NUMBER_GOES_ON and self._read_more():
                continue
            self._take(end - self._at)
            return value

    def _expect_end(self) -> None:
        if after := self._next_character():
            raise self._error(f"expected the end of the file, found {shown(after)}")

    def _next_character(self) -> str:
        """Skip white space; returns "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                character = self._text[self._at]
                if character not in _SPACE:
                    return character
                self._take(1)
            if not self._read_more():
                return ""

    def _take(self, characters: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + characters)
        self._at += characters

    def _read_more(self) -> bool:
        """Read on, as much again as is held; returns False at the end or beyond the limit."""
        self._text = self._text[self._at :]
        self._at = 0
        if self._ended or len(self._text) > MAX_ITEM_CHARACTERS:
            return False
        data = self._file.read(max(_READ_BYTES, len(self._text)))
        self._ended = not data
        try:
            self._text += self._decode.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 ({error.reason}) here or below") from None
        return True

    def _error(self, problem: str) -> UsageError:
        return at_line(self._path, self._line, problem)


def _reason(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
