"""Dialects of the OpenAI API: servers that somebody runs, which return no token ids.

llama.cpp, SGLang, TensorRT-LLM and Ollama (`--base-url`). Prompts are text, the server counts the
tokens, and none has counters that we read. Each `Dialect` says how the server is recognised, where
it tells its version, and what it lacks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from tuner.records import Request, TextRequest
from tuner.servers.openai.api import OpenAiApi, get_json
from tuner.servers.openai.stream import CompletionStream
from tuner.servers.openai.text_prompts import text_of
from tuner.servers.openai.text_stream import TextStream
from tuner.servers.server import HttpCall, NotAnsweredError, ServerUnreachableError, TokenIds

_OF_TOKEN_IDS = ("return_token_ids", "detokenize")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of server: `owners` stand in its list of models, `version` in the JSON of a route.

    `obeys_ignore_eos` says whether it makes as many tokens as it is asked for, `keeps_connection`
    whether another request can follow a stream: llama.cpp says so (`Keep-Alive`) and hangs up.
    """

    name: str
    owners: tuple[str, ...]
    version_route: str
    version_field: str
    obeys_ignore_eos: bool = True
    keeps_connection: bool = True


LLAMA_CPP = Dialect("llama.cpp", ("llamacpp",), "/props", "build_info", keeps_connection=False)
SGLANG = Dialect("SGLang", ("sglang",), "/get_server_info", "version")
TENSORRT_LLM = Dialect("TensorRT-LLM", ("tensorrt_llm", "tensorrt-llm"), "/version", "version")
OLLAMA = Dialect("Ollama", ("library",), "/api/version", "version", obeys_ignore_eos=False)
DIALECTS = (LLAMA_CPP, SGLANG, TENSORRT_LLM, OLLAMA)


class TextApi(OpenAiApi):
    """A server of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        name = dialect.name
        self.lacks: tuple[str, ...] = (
            f"{name} returns no token ids: prompts are sent as text of about as many tokens, and "
            "answers are counted by its usage, whose tokens are spread over the text's arrival",
        )
        if not dialect.obeys_ignore_eos:
            self.lacks += (
                f"{name} has no ignore_eos: answers end where the model ends them, so they may be "
                "shorter than the workload's",
            )

    def completion(self, request: Request, served_name: str) -> HttpCall:
        """Return the call: messages go to the chat, all else to completions, as text."""
        call = super().completion(request, served_name)
        body = json.loads(call.body)
        for name in _OF_TOKEN_IDS:
            body.pop(name, None)
        if not isinstance(request, TextRequest):
            body["prompt"] = text_of(request.prompt_token_ids.tolist())
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        text = json.dumps(body, separators=(",", ":"))
        return HttpCall(call.route, text.encode(), self._dialect.keeps_connection)

    def stream(self, request: Request) -> CompletionStream:
        """Return what reads the answer, whose tokens the server counts."""
        may_stop = request.stops or not self._dialect.obeys_ignore_eos
        return TextStream(request.output_tokens, stops=may_stop)

    async def greedy_answer(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        prompt: Sequence[int],
        max_tokens: int,
    ) -> TokenIds:
        """Raise `NotAnsweredError`: there are no ids to compare."""
        raise NotAnsweredError(f"{self._dialect.name} returns no token ids")

    async def version(self, session: aiohttp.ClientSession, base_url: str) -> str | None:
        """Return the server's name, with its version if it says one."""
        try:
            told = await get_json(session, f"{base_url}{self._dialect.version_route}")
        except ServerUnreachableError:
            told = {}
        version = told.get(self._dialect.version_field)
        known = f" {version}" if isinstance(version, str | int) and str(version) else ""
        return f"{self._dialect.name}{known}"[:100]


async def dialect_of(session: aiohttp.ClientSession, base_url: str) -> Dialect | None:
    """Return the dialect of a running server; None for vLLM, and for one that is not known.

    Raises `ServerUnreachableError`.
    """
    listed = (await get_json(session, f"{base_url}/v1/models")).get("data")
    cards = [card for card in listed if isinstance(card, dict)] if isinstance(listed, list) else []
    owners = {str(card.get("owned_by")).lower() for card in cards}
    for dialect in DIALECTS:
        if owners & set(dialect.owners):
            return dialect
    if not cards or "vllm" in owners:
        return None
    for dialect in (OLLAMA, LLAMA_CPP):  # whose models may be called anybody's
        try:
            told = await get_json(session, f"{base_url}{dialect.version_route}")
        except ServerUnreachableError:
            continue
        if dialect.version_field in told:
            return dialect
    return None
