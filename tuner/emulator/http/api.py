"""Requests and responses of the emulated server: the OpenAI API's JSON, as vLLM has it."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tuner.emulator.engine.answers import Answers
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.http.tokenizer import decode, encode, encode_chat
from tuner.records import TokenArray

TokenId = Annotated[int, Field(ge=0)]


class StreamOptions(BaseModel):
    """What a stream says besides its tokens."""

    include_usage: bool = False


class _Asked(BaseModel):
    """The fields that the emulator reads; vLLM has more, and they change nothing here."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    ignore_eos: bool = False
    min_tokens: int = Field(default=0, ge=0)
    temperature: float = Field(default=1.0, ge=0)
    seed: int | None = None
    detokenize: bool = True


class CompletionRequest(_Asked):
    """The body of `/v1/completions`."""

    prompt: Annotated[list[TokenId], Field(min_length=1)] | Annotated[str, Field(min_length=1)]
    max_tokens: int = Field(default=16, ge=1)

    def prompt_tokens(self, vocabulary: int) -> TokenArray:
        """Return the prompt as tokens."""
        if isinstance(self.prompt, str):
            return encode(self.prompt, vocabulary)
        return np.array(self.prompt, np.int32)


class Message(BaseModel):
    """One message of a conversation."""

    role: str
    content: str


class ChatRequest(_Asked):
    """The body of `/v1/chat/completions`; without a limit the answer fills the context."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    def prompt_tokens(self, vocabulary: int) -> TokenArray:
        """Return the conversation as tokens."""
        return encode_chat((message.model_dump() for message in self.messages), vocabulary)


def output_limit(body: CompletionRequest | ChatRequest, prompt_tokens: int, context: int) -> int:
    """Return the most tokens that the answer may have."""
    if isinstance(body, CompletionRequest):
        return body.max_tokens
    asked = body.max_completion_tokens or body.max_tokens
    return max(context - prompt_tokens, 1) if asked is None else asked


class Answer:
    """One request under way: its tokens, and the JSON of what is said of them."""

    def __init__(
        self,
        number: int,
        model: str,
        body: CompletionRequest | ChatRequest,
        prompt: TokenArray,
        limit: int,
        answers: Answers,
    ) -> None:
        self._chat = isinstance(body, ChatRequest)
        self._body = body
        self._prompt = prompt
        kind = "chatcmpl" if self._chat else "cmpl"
        self._head = {"id": f"{kind}-{number:032x}", "created": int(time.time()), "model": model}
        sampled = body.seed if body.seed is not None else number
        seed = None if body.temperature == 0 else sampled
        end = limit if body.ignore_eos else max(answers.length(prompt, seed), body.min_tokens)
        self._finish: Literal["length", "stop"] = "stop" if end < limit else "length"
        self.sequence = Sequence(number, len(prompt), min(end, limit), prompt, answers, seed)
        self._tokens = answers.tokens(prompt, self.sequence.output_tokens, seed)

    @property
    def finish_reason(self) -> str:
        """Why the answer ends."""
        return self._finish

    def whole(self, made: int) -> str:
        """Return the response of a request that does not stream."""
        head = {**self._head, "object": "chat.completion" if self._chat else "text_completion"}
        choice = self._choice(0, made)
        if self._chat:
            choice = choice | {"message": choice.pop("delta")}
        return to_json({**head, "choices": [choice], "usage": self._usage(made)})

    def chunk(self, first: int, after: int) -> str:
        """Return the event with the tokens from `first` up to `after`."""
        return to_json({**self._event(), "choices": [self._choice(first, after)]})

    def last_event(self, made: int) -> str | None:
        """Return the event with the counts, if they were asked for."""
        options = self._body.stream_options
        if options is None or not options.include_usage:
            return None
        return to_json({**self._event(), "choices": [], "usage": self._usage(made)})

    def _event(self) -> dict[str, Any]:
        name = "chat.completion.chunk" if self._chat else "text_completion"
        return {"id": self._head["id"], "object": name} | self._head

    def _choice(self, first: int, after: int) -> dict[str, Any]:
        with_ids = self._body.return_token_ids
        tokens = self._tokens[first:after].tolist()
        text = decode(tokens) if self._body.detokenize else ""
        said: dict[str, Any] = {"text": text}
        if self._chat:
            said = {"delta": ({"role": "assistant"} if first == 0 else {}) | {"content": text}}
        finished = after == self.sequence.output_tokens
        return {
            "index": 0,
            **said,
            "logprobs": None,
            "finish_reason": self._finish if finished else None,
            "stop_reason": None,
            "prompt_token_ids": self._prompt.tolist() if with_ids and first == 0 else None,
            "token_ids": tokens if with_ids else None,
        }

    def _usage(self, tokens: int) -> dict[str, int]:
        prompt = len(self._prompt)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + tokens,
            "completion_tokens": tokens,
        }


def to_json(value: dict[str, Any]) -> str:
    """Return JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))
