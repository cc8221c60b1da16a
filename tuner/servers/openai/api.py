"""The OpenAI API, with the fields by which tokens are counted: `ignore_eos`, `return_token_ids`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from tuner.records import GenerationRequest, Prompt, Request, TextRequest
from tuner.servers.openai.replies import body_of, json_of, reply_to
from tuner.servers.openai.stream import CompletionStream
from tuner.servers.server import (
    Flags,
    HttpCall,
    NotAnsweredError,
    ServerSample,
    ServerUnreachableError,
    TokenIds,
)

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
_CANARY_TOKENS = 4
_CANARY_PROMPT = (5, 6, 7)
_QUOTE_CHARS = 200


class OpenAiApi:
    """Any server that speaks the OpenAI API and returns token ids; it reports no counters."""

    lacks: tuple[str, ...] = ()

    def completion(self, request: Request, served_name: str) -> HttpCall:
        """Return the call: messages go to the chat, all else to completions."""
        body: dict[str, object] = {
            "model": served_name,
            "max_tokens": request.output_tokens,
            "ignore_eos": not request.stops,
            "temperature": 0,
            "return_token_ids": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not isinstance(request, TextRequest):
            body["prompt"] = request.prompt_token_ids.tolist()
            body["detokenize"] = False
            return _call(COMPLETIONS, body)
        # The server counts the prompt: it says so in every chunk, also in those of a cut answer.
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        if isinstance(request.prompt, str):
            return _call(COMPLETIONS, {**body, "prompt": request.prompt})
        messages = [{"role": m.role, "content": m.content} for m in request.prompt]
        return _call(CHAT, {**body, **(request.chat_fields or {}), "messages": messages})

    def stream(self, request: Request) -> CompletionStream:
        """Return what reads the answer; of a text the server counts the prompt's tokens."""
        known = None if isinstance(request, TextRequest) else len(request.prompt_token_ids)
        return CompletionStream(known, request.output_tokens, stops=request.stops)

    async def greedy_answer(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        prompt: Sequence[int],
        max_tokens: int,
    ) -> TokenIds:
        """Return the greedy answer to a prompt of token ids.

        Raises `NotAnsweredError`, and `TimeoutError` at the deadline of the session.
        """
        body = {
            "model": served_name,
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "temperature": 0,
            "detokenize": False,
            "return_token_ids": True,
        }
        choice = await _first_choice(session, base_url.rstrip("/") + COMPLETIONS, body)
        token_ids = choice.get("token_ids")
        if not isinstance(token_ids, list):
            raise NotAnsweredError("the server does not return token ids")
        return tuple(int(token) for token in token_ids)

    async def greedy_text(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        prompt: Prompt,
        max_tokens: int,
        chat_fields: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the greedy answer to a text or to messages, up to where the model ends it.

        Raises `NotAnsweredError`, and `TimeoutError` at the deadline of the session.
        """
        body: dict[str, object] = {
            "model": served_name,
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        root = base_url.rstrip("/")
        if isinstance(prompt, str):
            choice = await _first_choice(session, root + COMPLETIONS, {**body, "prompt": prompt})
            said = choice.get("text")
        else:
            messages = [{"role": m.role, "content": m.content} for m in prompt]
            chat = {**body, **(chat_fields or {}), "messages": messages}
            choice = await _first_choice(session, root + CHAT, chat)
            message = choice.get("message")
            said = message.get("content") if isinstance(message, dict) else None
        if said is not None and not isinstance(said, str):
            raise NotAnsweredError("the answer is no text")
        return said or ""

    async def picture(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        request: GenerationRequest,
    ) -> bytes:
        """Raise `NotAnsweredError`: it makes text."""
        raise NotAnsweredError("it makes text")

    async def generates(
        self, session: aiohttp.ClientSession, base_url: str, served_name: str
    ) -> bool:
        """Have the engine make a few tokens; False if it did not. Raises `aiohttp`'s errors."""
        body = {
            "model": served_name,
            "prompt": list(_CANARY_PROMPT),
            "max_tokens": _CANARY_TOKENS,
            "ignore_eos": True,
            "detokenize": False,
        }
        url = base_url.rstrip("/") + COMPLETIONS
        async with reply_to(session, "POST", url, json=body) as reply:
            answer = await json_of(reply) if reply.status == 200 else None
        made = answer.get("usage") if isinstance(answer, dict) else None
        return isinstance(made, dict) and made.get("completion_tokens") == _CANARY_TOKENS

    async def is_ready(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """Say whether the server lists a model: the API has no other sign of its health."""
        try:
            return bool(await self.models(session, base_url))
        except ServerUnreachableError:
            return False

    async def models(self, session: aiohttp.ClientSession, base_url: str) -> tuple[str, ...]:
        """Return the names of the models that are served. Raises `ServerUnreachableError`."""
        listed = (await get_json(session, base_url + MODELS)).get("data")
        cards = listed if isinstance(listed, list) else []
        return tuple(str(card.get("id")) for card in cards if isinstance(card, dict))

    async def model_sources(
        self, session: aiohttp.ClientSession, base_url: str, served_name: str
    ) -> tuple[str, ...]:
        """Return what a served name stands for, if its card says so (`root`), else nothing.

        Raises `ServerUnreachableError`.
        """
        listed = (await get_json(session, base_url + MODELS)).get("data")
        cards = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
        roots = [card.get("root") for card in cards if card.get("id") == served_name]
        return tuple(root for root in roots if isinstance(root, str) and root)

    async def version(self, session: aiohttp.ClientSession, base_url: str) -> str | None:
        """Return None: the API has no route for it."""
        return None

    async def sample(self, session: aiohttp.ClientSession, base_url: str) -> ServerSample:
        """Return a sample that knows nothing."""
        return ServerSample()

    async def settings(self, session: aiohttp.ClientSession, base_url: str) -> Flags | None:
        """Return None: the server does not say."""
        return None

    async def sleep(self, session: aiohttp.ClientSession, base_url: str, level: int) -> bool:
        """Return False: there is no way to ask for it."""
        return False

    async def wake(self, session: aiohttp.ClientSession, base_url: str, level: int) -> bool:
        """Return False: there is no way to ask for it."""
        return False

    async def reset_prefix_cache(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """Return False: there is no way to ask for it."""
        return False


async def get_json(session: aiohttp.ClientSession, url: str) -> dict[str, object]:
    """Return the JSON object at `url`, {} for JSON of another kind.

    Raises `ServerUnreachableError`.
    """
    try:
        async with reply_to(session, "GET", url) as reply:
            reply.raise_for_status()
            data = await json_of(reply)
    except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
        said = str(error)[:_QUOTE_CHARS] or "time-out"  # it may quote all that was answered
        raise ServerUnreachableError(f"no answer from {url}: {said}") from error
    return data if isinstance(data, dict) else {}


async def _first_choice(
    session: aiohttp.ClientSession, url: str, body: Mapping[str, object]
) -> dict[str, object]:
    """Return the first choice of an answer that is not streamed; raises as `greedy_answer`."""
    try:
        async with reply_to(session, "POST", url, json=body) as reply:
            if reply.status != 200:
                said = (await body_of(reply)).decode(errors="replace")[:_QUOTE_CHARS].strip()
                raise NotAnsweredError(f"HTTP {reply.status}: {said}")
            choice = (await json_of(reply))["choices"][0]
    except TimeoutError:  # one of aiohttp's errors, too: how long to wait is the caller's
        raise
    except (aiohttp.ClientError, ValueError, LookupError, TypeError, RecursionError) as error:
        kind = type(error).__name__
        raise NotAnsweredError(f"no answer with token ids ({kind})") from error
    if not isinstance(choice, dict):
        raise NotAnsweredError("no answer with token ids")
    return choice


def _call(route: str, body: dict[str, object]) -> HttpCall:
    return HttpCall(route, json.dumps(body, separators=(",", ":")).encode())
