"""An OpenAI-compatible HTTP server over the served engine, speaking as vLLM does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web
from pydantic import ValidationError

from tuner.emulator.cache_memory import BLOCK_TOKENS
from tuner.emulator.engine.step_log import WriteLog
from tuner.emulator.http.api import Answer, ChatRequest, CompletionRequest, output_limit
from tuner.emulator.http.metrics_page import CopyMetrics, page
from tuner.emulator.http.served_replicas import ServedReplicas
from tuner.emulator.http.sleep import SleepMode
from tuner.emulator.launch_rules import request_refusal

VERSION = "0.0.0+emulator"
_MAX_BODY_BYTES = 64 * 2**20


class Server:
    """The routes."""

    def __init__(
        self,
        live: ServedReplicas,
        served_model_name: str,
        wrote: WriteLog | None = None,
        sleep: SleepMode | None = None,
    ) -> None:
        self._sleep = sleep
        self._live = live
        self._metrics_of = {copy: CopyMetrics() for copy in live.copies}
        self._launch = live.copies[0].engine.launch
        self._answers = live.copies[0].engine.answers
        self._wrote = wrote
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
        app.router.add_get("/server_info", self._server_info)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/reset_prefix_cache", self._reset_prefix_cache)
        if self._sleep is not None:
            self._sleep.add_routes(app)
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
            "max_model_len": self._launch.max_model_len,
        }
        return web.json_response({"object": "list", "data": [card]})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=page(self._live, self._metrics_of.values(), self._name))

    async def _reset_prefix_cache(self, _: web.Request) -> web.Response:
        return web.json_response({"success": self._live.reset_prefix_cache()})

    async def _server_info(self, _: web.Request) -> web.Response:
        """Return what vLLM's route for developers says, as far as it is emulated."""
        launch = self._launch
        config = {
            "model_config": {"model": self._name, "max_model_len": launch.max_model_len},
            "cache_config": {
                "block_size": BLOCK_TOKENS,
                "gpu_memory_utilization": launch.gpu_memory_utilization,
                "enable_prefix_caching": launch.prefix_caching,
                "num_gpu_blocks": launch.kv_blocks,
                "kv_cache_size_tokens": launch.kv_blocks * BLOCK_TOKENS,
            },
            "parallel_config": {
                "tensor_parallel_size": launch.tensor_parallel_size,
                "data_parallel_size": launch.data_parallel_size,
            },
            "scheduler_config": {
                "max_num_seqs": launch.max_num_seqs,
                "max_num_batched_tokens": launch.max_num_batched_tokens,
                "enable_chunked_prefill": launch.chunked_prefill,
                "async_scheduling": launch.async_scheduling,
                "long_prefill_token_threshold": launch.long_prefill_token_threshold,
            },
        }
        return web.json_response({"vllm_config": config})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, CompletionRequest)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, ChatRequest)

    async def _answer(
        self, request: web.Request, kind: type[CompletionRequest | ChatRequest]
    ) -> web.StreamResponse:
        try:
            body = kind.model_validate_json(await request.read())
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            return _error(400, "BadRequestError", f"{where}: {problem['msg']}", where or None)
        if body.model not in (None, self._name):
            message = f"The model `{body.model}` does not exist."
            return _error(404, "NotFoundError", message, "model")
        prompt = body.prompt_tokens(self._answers.vocabulary)
        context = self._launch.max_model_len
        limit = output_limit(body, len(prompt), context)
        refusal = request_refusal(len(prompt), limit, context)
        if refusal is not None:
            return _error(400, "BadRequestError", refusal, None)
        if self._sleep is not None:
            await self._sleep.awake.wait()
        answer = Answer(next(self._ids), self._name, body, prompt, limit, self._answers)
        if body.stream:
            return await self._stream(request, answer)
        return await self._whole(answer)

    async def _stream(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        try:
            async for event in self._events(answer):
                before_s = time.monotonic()
                await response.write(f"data: {event}\n\n".encode())
                if self._wrote is not None:
                    self._wrote.append(answer.sequence, before_s, time.monotonic())
        except ConnectionResetError:
            return response
        await response.write_eof()
        return response

    async def _events(self, answer: Answer) -> AsyncGenerator[str, None]:
        """Yield the data of each server-sent event; a broken engine ends them early."""
        sent = 0
        async with aclosing(self._progress(answer)) as progress:
            async for tokens in progress:
                yield answer.chunk(sent, tokens)
                sent = tokens
        if sent < answer.sequence.output_tokens:
            return
        usage = answer.last_event(sent)
        if usage is not None:
            yield usage
        yield "[DONE]"

    async def _whole(self, answer: Answer) -> web.Response:
        made = 0
        async with aclosing(self._progress(answer)) as progress:
            async for tokens in progress:
                made = tokens
        if made < answer.sequence.output_tokens:
            return _error(500, "InternalServerError", "EngineCore encountered an issue.", None)
        return web.json_response(text=answer.whole(made))

    async def _progress(self, answer: Answer) -> AsyncGenerator[int, None]:
        """Yield how many tokens there are, each time there are more, and count them."""
        live = self._live.least_busy()
        metrics = self._metrics_of[live]
        came_s = last_s = time.monotonic()
        tokens = 0
        async with aclosing(live.generate(answer.sequence)) as progress:
            async for more in progress:
                now_s = time.monotonic()
                if tokens == 0:
                    metrics.first_token(now_s - came_s)
                else:
                    metrics.next_token(now_s - last_s)
                tokens, last_s = more, now_s
                yield tokens
        if tokens >= answer.sequence.output_tokens:
            metrics.finished(answer.finish_reason, last_s - came_s)


def _error(status: int, kind: str, message: str, parameter: str | None) -> web.Response:
    error = {"message": message, "type": kind, "param": parameter, "code": status}
    return web.json_response({"error": error}, status=status)


async def run(
    live: ServedReplicas,
    served_model_name: str,
    host: str,
    port: int,
    stop: asyncio.Event,
    sleep: SleepMode | None = None,
) -> None:
    """Serve until `stop` is set.

    Raises `OSError` if the port is taken, `LaunchRefusedError` if the GPUs are.
    """
    app = Server(live, served_model_name, sleep=sleep).app()
    # A client that goes away cancels its handler, which aborts its sequence.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await live.start()
        await web.TCPSite(runner, host, port).start()
        await stop.wait()
    finally:
        await runner.cleanup()
        await live.stop()
