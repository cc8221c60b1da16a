"""One streamed completion over HTTP: sent once, timed token by token, never retried."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from tuner.load.client.body_stream import Body, StreamedResponse, StreamingConnector
from tuner.metrics import Output
from tuner.records import GenerationRequest, Request, RequestRecord, RequestState
from tuner.servers.openai.stream import SHOWN_CHARACTERS
from tuner.servers.server import Endpoint

# Servers close idle connections (uvicorn after 5 s); ours go first, so that no request is sent
# into a connection that is being closed.
_KEEP_ALIVE_S = 2.0
_CLOSING_S = 1.0
_WHOLE_ANSWER_S = 7200.0
_BODY_BYTES = 4096


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


def open_session(limits: ClientLimits) -> aiohttp.ClientSession:
    """Return a session without a limit of connections; the caller closes it."""
    return aiohttp.ClientSession(
        connector=StreamingConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        response_class=StreamedResponse,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s),
        # A compressed stream would deliver tokens only when the compressor has enough of them.
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
    )


class Exchange:
    """One request under way, and its record at any time: also of a cancelled one."""

    def __init__(self, request: Request, server: Endpoint, scheduled_s: float) -> None:
        self.request = request
        self.scheduled_s = scheduled_s
        self.refused = False  # nobody listens at the server's address
        call = server.api.completion(request, server.served_name)
        self._url, self._body = server.url(call), call.body
        self._headers = {"Content-Type": call.content_type}
        if not call.keeps_connection:
            self._headers["Connection"] = "close"
        self._stream = server.api.stream(request)
        self._state = RequestState.CUT
        self.error: str | None = None  # why it failed
        self._ended_s: float | None = None
        self.sent_s = time.monotonic()  # the body is ready: building it is not the server's time

    @property
    def last_token_s(self) -> float | None:
        """When its last token arrived."""
        return self._stream.last_token_s

    async def run(self, session: aiohttp.ClientSession, limits: ClientLimits) -> None:
        """Send, read to the end, and settle how it ended; a cancelled one stays unsettled."""
        try:
            problem = await self._talk(session, limits)
        except aiohttp.ServerTimeoutError:
            problem = f"timed out: no connection within {limits.connect_s:g} s"
        except aiohttp.ClientConnectorError as error:
            self.refused = isinstance(error.os_error, ConnectionRefusedError)
            reason = "connection refused" if self.refused else str(error.os_error)
            problem = f"cannot connect: {reason}"
        except (aiohttp.ClientError, OSError) as error:
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

    async def _talk(self, session: aiohttp.ClientSession, limits: ClientLimits) -> str | None:
        """Return why no stream was read to its end, or None if one was."""
        first_due_s = time.monotonic() + limits.first_token_s
        try:
            async with (
                asyncio.timeout(limits.first_token_s) as deadline,
                session.post(
                    self._url,
                    data=self._body,
                    headers=self._headers,
                    allow_redirects=False,  # the tokens of another server are not measured
                    auto_decompress=False,  # asked not to pack, a server that does is no good one
                ) as response,
            ):
                if response.status != 200:
                    text = (await response.content.read(_BODY_BYTES)).decode(errors="replace")
                    return f"HTTP {response.status}: {text[:SHOWN_CHARACTERS].strip()}"
                deadline.reschedule(None)
                assert isinstance(response, StreamedResponse)
                return await self._read(response.body, first_due_s, limits)
        except TimeoutError:
            if not deadline.expired():
                raise
            return self._late(limits)

    async def _read(self, body: Body, first_due_s: float, limits: ClientLimits) -> str | None:
        """Let the body flow into the stream until one of them is at its end."""
        stream = self._stream
        news = asyncio.Event()
        fed_s = time.monotonic()
        begun = False

        def feed(data: bytes, arrived_s: float) -> None:
            nonlocal fed_s, begun
            stream.feed(data, arrived_s)
            fed_s = arrived_s
            if not begun or stream.problem is not None or stream.ended_s is not None:
                begun = stream.received > 0
                news.set()

        body.deliver(feed, news.set)
        while not body.ended and stream.problem is None:
            # The end of the response is awaited only to use the connection again.
            if stream.ended_s is not None:
                due_s = stream.ended_s + _CLOSING_S
            else:
                due_s = fed_s + limits.silence_s if stream.received else first_due_s
            left_s = due_s - time.monotonic()
            if left_s <= 0:
                return self._late(limits)
            news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):  # wait_for of 3.11 loses cancellations
                    await news.wait()
        if body.error is not None:
            raise body.error
        return None

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
