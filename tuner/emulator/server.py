"""An OpenAI-compatible HTTP server over the live engine, speaking as vLLM does."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuner.emulator.launch_rules import request_refusal
from tuner.emulator.live import LiveEngine
from tuner.emulator.sequences import Sequence

VERSION = "0.0.0+emulator"
_MAX_BODY_BYTES = 64 * 2**20

TokenId = Annotated[int, Field(ge=0)]


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _CompletionRequest(BaseModel):
    """The fields that the emulator reads; vLLM has more, and they change nothing here."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    prompt: list[TokenId] = Field(min_length=1)
    max_tokens: int = Field(default=16, ge=1)
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    return_token_ids: bool = False


class Server:
    """The routes."""

    def __init__(self, live: LiveEngine, served_model_name: str) -> None:
        self._live = live
        self._name = served_model_name
        self._ids = itertools.count()
        self._created = int(time.time())

    def app(self) -> web.Application:
        """Return the application with all its routes."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/completions", self._completions)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "vllm",
            "root": self._name,
            "parent": None,
            "max_model_len": self._live.engine.launch.max_model_len,
        }
        return web.json_response({"object": "list", "data": [card]})

    async def _metrics(self, _: web.Request) -> web.Response:
        engine = self._live.engine
        labels = f'{{engine="0",model_name="{self._name}"}}'
        lines = []
        for name, kind, value in (
            ("vllm:num_requests_running", "gauge", engine.running),
            ("vllm:num_requests_waiting", "gauge", engine.waiting),
            ("vllm:kv_cache_usage_perc", "gauge", engine.cache_usage),
            ("vllm:num_preemptions_total", "counter", engine.counters.preemptions),
            ("vllm:prompt_tokens_total", "counter", engine.counters.prompt_tokens),
            ("vllm:generation_tokens_total", "counter", engine.counters.generation_tokens),
            ("tuner_emulated:energy_joules_total", "counter", self._live.energy_j()),
            ("tuner_emulated:power_watts", "gauge", self._live.power_w()),
        ):
            lines += [
                f"# TYPE {name.removesuffix('_total')} {kind}",
                f"{name}{labels} {float(value)}",
            ]
        return web.Response(text="\n".join(lines) + "\n")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        try:
            body = _CompletionRequest.model_validate_json(await request.read())
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            return _error(400, "BadRequestError", f"{where}: {problem['msg']}", where or None)
        if body.model not in (None, self._name):
            message = f"The model `{body.model}` does not exist."
            return _error(404, "NotFoundError", message, "model")
        limit = self._live.engine.launch.max_model_len
        refusal = request_refusal(len(body.prompt), body.max_tokens, limit)
        if refusal is not None:
            return _error(400, "BadRequestError", refusal, None)
        number = next(self._ids)
        completion = _Completion(f"cmpl-{number:032x}", self._name, int(time.time()), body)
        sequence = Sequence(number, len(body.prompt), body.max_tokens)
        if body.stream:
            return await self._stream(request, completion, sequence)
        return await self._whole(completion, sequence)

    async def _stream(
        self, request: web.Request, completion: _Completion, sequence: Sequence
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        try:
            async for event in completion.events(self._live, sequence):
                await response.write(f"data: {event}\n\n".encode())
        except ConnectionResetError:
            return response
        await response.write_eof()
        return response

    async def _whole(self, completion: _Completion, sequence: Sequence) -> web.Response:
        made = 0
        async with aclosing(self._live.generate(sequence)) as progress:
            async for tokens in progress:
                made = tokens
        if made < sequence.output_tokens:
            return _error(500, "InternalServerError", "EngineCore encountered an issue.", None)
        choice = completion.choice(0, made, finished=True)
        return web.json_response({**completion.head([choice]), "usage": completion.usage(made)})


class _Completion:
    """The JSON of one completion."""

    def __init__(self, number: str, model: str, created: int, body: _CompletionRequest) -> None:
        self._id = number
        self._model = model
        self._created = created
        self._body = body

    def head(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a response, or a chunk of a stream, with these choices."""
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }

    def choice(self, first: int, after: int, *, finished: bool) -> dict[str, Any]:
        """Return the tokens from `first` up to `after`."""
        with_ids = self._body.return_token_ids
        return {
            "index": 0,
            "text": "",
            "logprobs": None,
            "finish_reason": "length" if finished else None,
            "stop_reason": None,
            "prompt_token_ids": self._body.prompt if with_ids and first == 0 else None,
            "token_ids": list(range(first, after)) if with_ids else None,
        }

    def usage(self, tokens: int) -> dict[str, int]:
        """Return the token counts."""
        prompt = len(self._body.prompt)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + tokens,
            "completion_tokens": tokens,
        }

    async def events(self, live: LiveEngine, sequence: Sequence) -> AsyncGenerator[str, None]:
        """Yield the data of each server-sent event; a broken engine ends them early."""
        sent = 0
        async with aclosing(live.generate(sequence)) as progress:
            async for tokens in progress:
                finished = tokens == sequence.output_tokens
                yield _json(self.head([self.choice(sent, tokens, finished=finished)]))
                sent = tokens
        if sent < sequence.output_tokens:
            return
        if self._body.stream_options.include_usage:
            yield _json({**self.head([]), "usage": self.usage(sent)})
        yield "[DONE]"


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _error(status: int, kind: str, message: str, parameter: str | None) -> web.Response:
    error = {"message": message, "type": kind, "param": parameter, "code": status}
    return web.json_response({"error": error}, status=status)


async def run(
    live: LiveEngine, served_model_name: str, host: str, port: int, stop: asyncio.Event
) -> None:
    """Serve until `stop` is set; raises `OSError` if the port is taken."""
    app = Server(live, served_model_name).app()
    # A client that goes away cancels its handler, which aborts its sequence.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await live.start()
    try:
        await web.TCPSite(runner, host, port).start()
        await stop.wait()
    finally:
        await runner.cleanup()
        await live.stop()
