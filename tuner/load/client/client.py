"""One streamed completion over HTTP: sent once, timed token by token, never retried."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from tuner.load.client.connection import Connection
from tuner.load.client.connections import CannotConnectError, Connections
from tuner.load.client.framing import HttpError
from tuner.metrics import Output
from tuner.records import GenerationRequest, Request, RequestRecord, RequestState
from tuner.servers.openai.stream import SHOWN_CHARACTERS
from tuner.servers.server import Endpoint

_CLOSING_S = 1.0
_WHOLE_ANSWER_S = 7200.0
_REFUSAL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How long the client waits before it calls a request failed.

    `first_token_s` counts from the sending, `silence_s` is the longest pause between two chunks of
    one answer, and the longest time without a token from any request.
    """

    connect_s: float = 10.0
    first_token_s: float = 600.0
    silence_s: float = 120.0

    @classmethod
    def of(cls, output: Output) -> ClientLimits:
        """Return the limits for what is asked for: a video arrives after an hour, all at once."""
        if output.is_text:
            return cls()
        return cls(first_token_s=_WHOLE_ANSWER_S, silence_s=_WHOLE_ANSWER_S)

    def __post_init__(self) -> None:
        if min(self.connect_s, self.first_token_s, self.silence_s) <= 0:
            raise ValueError(f"every limit of the client must be more than 0 s, found {self}")


class Exchange:
    """One request under way, and its record at any time: also of a cancelled one."""

    __slots__ = (
        "_begun",
        "_body",
        "_connection",
        "_ended_s",
        "_fed_s",
        "_head",
        "_keeps_connection",
        "_news",
        "_refusal",
        "_state",
        "_stream",
        "_url",
        "error",
        "refused",
        "request",
        "scheduled_s",
        "sent_s",
    )

    def __init__(self, request: Request, server: Endpoint, scheduled_s: float) -> None:
        self.request = request
        self.scheduled_s = scheduled_s
        self.refused = False  # nobody listens at the server's address
        call = server.api.completion(request, server.served_name)
        self._url, self._body = server.url(call), call.body
        self._head = f"Content-Type: {call.content_type}\r\nContent-Length: {len(call.body)}\r\n"
        self._keeps_connection = call.keeps_connection
        if not call.keeps_connection:
            self._head += "Connection: close\r\n"
        self._stream = server.api.stream(request)
        self._state = RequestState.CUT
        self.error: str | None = None  # why it failed
        self._ended_s: float | None = None
        self._news: asyncio.Future[None] | None = None
        self._connection: Connection | None = None
        self._refusal = b""  # the body of an answer that is none
        self._begun = False  # whether a token has arrived
        self._fed_s = math.nan  # when something of the answer arrived last
        self.sent_s = time.monotonic()  # the body is ready: building it is not the server's time

    @property
    def last_token_s(self) -> float | None:
        """When its last token arrived."""
        return self._stream.last_token_s

    async def run(self, connections: Connections, limits: ClientLimits) -> None:
        """Send, read to the end, and settle how it ended; a cancelled one stays unsettled."""
        try:
            problem = await self._talk(connections, limits)
        except CannotConnectError as error:
            self.refused = isinstance(error.cause, ConnectionRefusedError)
            reason = "connection refused" if self.refused else str(error.cause)
            problem = f"cannot connect: {reason}"
            if error.cause is None:
                problem = f"timed out: no connection within {limits.connect_s:g} s"
        except (HttpError, OSError) as error:
            reason = str(error) or type(error).__name__
            problem = f"connection lost after {self._stream.progress()}: {reason}"
        self._settle(problem)

    def fail(self, reason: str) -> None:
        """Settle a request under way as failed."""
        self._settle(reason)

    def record(self, now_s: float) -> RequestRecord:
        """Return the record so far; an unsettled request counts as cut at `now_s`."""
        return RequestRecord(
            request_id=self.request.request_id,
            prompt_tokens=self._prompt_tokens(),
            output_tokens=self._output_tokens(),
            scheduled_s=self.scheduled_s,
            sent_s=self.sent_s,
            token_times_s=self._stream.token_times_s(),
            ended_s=now_s if self._ended_s is None else self._ended_s,
            state=self._state,
            error=self.error,
            units=self.request.units if isinstance(self.request, GenerationRequest) else None,
        )

    def _output_tokens(self) -> int:
        """Return what was asked for, or of a whole answer what it has: it may stop by itself."""
        is_whole = self._state is RequestState.DONE
        return self._stream.received if is_whole else self.request.output_tokens

    def _prompt_tokens(self) -> int:
        """Return what the server counted of a text; an estimate if it said nothing."""
        counted = self._stream.prompt_tokens
        return len(self.request.prompt_token_ids) if counted is None else counted

    async def _talk(self, connections: Connections, limits: ClientLimits) -> str | None:
        """Return why no stream was read to its end, or None if one was.

        Redirects are not followed: the tokens of another server are not measured.
        """
        first_due_s = time.monotonic() + limits.first_token_s
        target = connections.target(self._url)
        connection = self._connection = await connections.take(target.origin)
        stream = self._stream
        head = target.head + f"{self._head}\r\n".encode()
        try:
            connection.post(head + self._body, self._feed, self._tell, keep=self._keeps_connection)
            self._body = b""  # a long prompt, and it is not sent again
            while not (connection.ended or stream.problem or len(self._refusal) >= _REFUSAL_BYTES):
                # The end of the response is awaited only to use the connection again.
                if stream.ended_s is not None:
                    due_s = stream.ended_s + _CLOSING_S
                else:
                    due_s = self._fed_s + limits.silence_s if stream.received else first_due_s
                if time.monotonic() >= due_s:
                    return self._late(limits)
                # an `asyncio.Event` in a time-out does the same with ten times the memory
                self._news = asyncio.get_running_loop().create_future()
                connections.alarms.set(self._tell, due_s)
                await self._news
        finally:
            connections.alarms.drop(self._tell)
            connections.give_back(connection)
        if connection.status not in (None, 200):
            text = self._refusal[:_REFUSAL_BYTES].decode(errors="replace")
            return f"HTTP {connection.status}: {text[:SHOWN_CHARACTERS].strip()}"
        if connection.error is not None:
            raise connection.error
        return None

    def _feed(self, data: bytes, arrived_s: float) -> None:
        """Take in what arrived of the body."""
        assert self._connection is not None
        if self._connection.status != 200:
            self._refusal += data[:_REFUSAL_BYTES]
            self._tell()
            return
        stream = self._stream
        stream.feed(data, arrived_s)
        self._fed_s = arrived_s
        if not self._begun or stream.problem is not None or stream.ended_s is not None:
            self._begun = stream.received > 0
            self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _late(self, limits: ClientLimits) -> str:
        if self._stream.received:
            return f"timed out: silent for {limits.silence_s:g} s after {self._stream.progress()}"
        return f"timed out: no token within {limits.first_token_s:g} s"

    def _settle(self, problem: str | None) -> None:
        now_s = time.monotonic()
        if problem is None or self._stream.ended_s is not None:
            # What happens to the connection after [DONE] says nothing about the answer.
            self._stream.close(now_s)
            problem = self._stream.problem
        self._ended_s = now_s if self._stream.ended_s is None else self._stream.ended_s
        self.error = problem
        self._state = RequestState.DONE if problem is None else RequestState.FAILED
