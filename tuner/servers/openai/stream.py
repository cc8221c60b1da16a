"""Parser of a streamed completion, from its bytes: no network, no clock."""

from __future__ import annotations

import json
from array import array
from typing import Any

import numpy as np
import orjson

from tuner.records import FloatArray

SHOWN_CHARACTERS = 200
_MAX_LINE_BYTES = 4 * 2**20
_END = b"\n\n"
_NO_DELTA: dict[str, Any] = {}
_FINISH_REASONS = ("length", "stop")  # vLLM also says "abort" and "error"


class LineSplitter:
    """Splits a byte stream into lines; chunks may end anywhere."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""  # the unfinished line

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are now complete, without their ends."""
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        return [line.rstrip(b"\r") for line in lines]

    def take_rest(self) -> bytes:
        """Return the unfinished line at the end of the stream, and forget it."""
        rest, self.rest = self.rest, b""
        return rest.rstrip(b"\r")


class CompletionStream:
    """Follows one streamed completion and judges it.

    Once `problem` is set the stream cannot become good any more; reading on is useless. Without
    `prompt_tokens` the prompt is text, and the stream has to say how many tokens it was. With
    `stops` the answer may end before it has all the tokens that were asked for.
    """

    __slots__ = (
        "_asked",
        "_finish_reason",
        "_lines",
        "_stops",
        "_times_s",
        "ended_s",
        "problem",
        "prompt_tokens",
    )

    def __init__(
        self, prompt_tokens: int | None, output_tokens: int, *, stops: bool = False
    ) -> None:
        self.prompt_tokens = prompt_tokens  # as told to us, or by the server's usage
        self._asked = output_tokens
        self._stops = stops
        self._lines = LineSplitter()
        self._times_s = array("d")  # a quarter of a list of floats
        self._finish_reason: str | None = None
        self.ended_s: float | None = None  # when `[DONE]` arrived
        self.problem: str | None = None

    @property
    def received(self) -> int:
        """How many output tokens have arrived."""
        return len(self._times_s)

    @property
    def last_token_s(self) -> float | None:
        """When the last output token arrived."""
        return self._times_s[-1] if self._times_s else None

    def token_times_s(self) -> FloatArray:
        """When each output token arrived."""
        return np.array(self._times_s, dtype=np.float64)

    def progress(self) -> str:
        """`k of n tokens`."""
        return f"{self.received} of {self._asked} tokens"

    def feed(self, data: bytes, now_s: float) -> None:
        """Take in what arrived at `now_s`."""
        lines = self._lines
        is_one_event = data.startswith(b"data: {") and data.find(b"\n") == len(data) - 2
        is_one_event = is_one_event and data.endswith(_END) and not lines.rest
        if is_one_event and self.problem is None and self.ended_s is None:
            # as most chunks are: no line has to be put together, and none to be told apart
            self._read_payload(data[6:-2], now_s)
            return
        for line in lines.feed(data):
            if line and self.problem is None:
                self._read_line(line, now_s)
        if len(lines.rest) > _MAX_LINE_BYTES and self.problem is None:
            self.problem = f"a line of more than {_MAX_LINE_BYTES} bytes in the stream"

    def close(self, now_s: float) -> None:
        """Take in that the stream has ended, and give the verdict."""
        if self.problem is None:
            self._read_rest(now_s)
        if self.problem is None:
            self.problem = self._verdict()

    def _read_rest(self, now_s: float) -> None:
        if rest := self._lines.take_rest():
            self._read_line(rest, now_s)

    def _verdict(self) -> str | None:
        if self._finish_reason is None:
            return f"stream closed without finish reason after {self.progress()}"
        if self._finish_reason not in _FINISH_REASONS:
            return f"finish reason '{self._finish_reason}' after {self.progress()}"
        is_whole = self.received > 0 if self._stops else self.received == self._asked
        if not is_whole:
            return f"finished ('{self._finish_reason}') after {self.progress()}"
        if self.ended_s is None:
            return f"stream closed without [DONE] after {self.progress()}"
        if self.prompt_tokens is None:
            return "the server did not say how many tokens the prompt has (no usage)"
        return None

    def _read_line(self, line: bytes, now_s: float) -> None:
        if line.startswith(b"data:"):
            payload = line[5:].strip()
            if self.ended_s is not None:
                self.problem = f"data after [DONE]: {_shown(payload)}"
            elif payload == b"[DONE]":
                self.ended_s = now_s
            else:
                self._read_payload(payload, now_s)
        # Comments and the other fields of server-sent events carry no tokens.
        elif not line.startswith((b":", b"event:", b"id:", b"retry:")):
            self._read_foreign(line)

    def _read_payload(self, payload: bytes, now_s: float) -> None:
        try:
            event = _event(payload)
        except (ValueError, RecursionError):
            self.problem = f"malformed line in the stream: {_shown(payload)}"
            return
        try:
            self.read_event(event, now_s)
        except (TypeError, KeyError, AttributeError, IndexError):
            self.problem = f"unexpected event in the stream: {_shown(payload)}"

    def read_event(self, event: dict[str, Any], now_s: float) -> None:
        """Take in one event; another server's may look different. May raise as indexing does."""
        if (error := event.get("error")) is not None:
            self.problem = f"error in the stream: {_message(error)}"
            return
        usage = event.get("usage")
        # some gateways send the usage alone
        if choices := event["choices"] if usage is None else event.get("choices"):
            choice = choices[0]
            if token_ids := choice.get("token_ids"):
                for _ in token_ids:
                    self._times_s.append(now_s)
                if len(self._times_s) > self._asked:
                    self.problem = f"too many tokens: {self.progress()}"
            elif choice.get("text") or _said(choice.get("delta") or _NO_DELTA):
                self.problem = "the server streams text without token_ids; it must support "
                self.problem += "return_token_ids (vLLM 0.11 or later)"
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        if usage is not None:
            self._check_usage(usage)

    def _check_usage(self, usage: dict[str, Any]) -> None:
        # vLLM can repeat the usage so far in every chunk: it must agree each time.
        if self.prompt_tokens is None and isinstance(usage.get("prompt_tokens"), int):
            self.prompt_tokens = usage["prompt_tokens"]
        counted = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.received}
        for name, ours in counted.items():
            theirs = usage.get(name)
            if theirs is not None and theirs != ours and self.problem is None:
                self.problem = f"usage says {theirs} {name}, counted {ours}"

    def _read_foreign(self, line: bytes) -> None:
        """Read a line that is no server-sent event: perhaps a plain JSON error."""
        try:
            answer = json.loads(line.decode())
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and answer.get("error") is not None:
            self.problem = f"error in the stream: {_message(answer['error'])}"
        else:
            self.problem = f"malformed line in the stream: {_shown(line)}"


def _event(payload: bytes) -> Any:
    """Return the JSON of an event; raises `ValueError` or `RecursionError`."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:  # it is stricter than Python, as in NaN
        return json.loads(payload.decode())


def _said(delta: dict[str, Any]) -> bool:
    return any(delta.get(name) for name in ("content", "reasoning_content", "reasoning"))


def _message(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else None
    return str(error if message is None else message)[:SHOWN_CHARACTERS]


def _shown(data: bytes) -> str:
    return repr(data[:SHOWN_CHARACTERS].decode(errors="replace"))
