"""Thinking: how a workload's chats ask the model to think, and how long answers become."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tuner.configuration import level_name
from tuner.load.text_request import estimated_tokens, stand_in_ids
from tuner.records import Message, Prompt, Request, TextRequest

_LEVEL = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class Thinking(BaseModel):
    """How chats ask the model to think; what is not written is left to the server.

    `enabled` is the chat template's `enable_thinking`, `effort` the API's `reasoning_effort`,
    `budget_tokens` vLLM's `thinking_token_budget`. `system` is a system message in front, for
    models that have no such switch. `token_multiplier` is how many times as long the answers
    become: drawn lengths, and the most of a trace and of a question, are multiplied by it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool | None = None
    effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    budget_tokens: Annotated[int, Field(ge=0, le=2**20)] | None = None
    system: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    token_multiplier: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0

    @property
    def chat_fields(self) -> dict[str, Any]:
        """The fields of a chat's body."""
        kwargs = None if self.enabled is None else {"enable_thinking": self.enabled}
        fields = {
            "chat_template_kwargs": kwargs,
            "reasoning_effort": self.effort,
            "thinking_token_budget": self.budget_tokens,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def longer(self, tokens: int) -> int:
        """Return how long an answer of so many tokens becomes, at least one token."""
        return max(1, round(tokens * self.token_multiplier))

    def asked(self, prompt: Prompt) -> Prompt:
        """Return a prompt with the system message in front of its messages; a text as it is."""
        if self.system is None or isinstance(prompt, str):
            return prompt
        return (Message("system", self.system), *prompt)

    def applied_to(self, request: Request) -> Request:
        """Return a request that asks for this thinking, and whose answer is longer for it."""
        longer = self.longer(request.output_tokens)
        request = replace(request, output_tokens=longer, chat_fields=self.chat_fields or None)
        if self.system is None or not isinstance(request, TextRequest):
            return request
        tokens = request.prompt_token_ids.size + estimated_tokens(self.system)
        ids = stand_in_ids(tokens).astype(np.int32)
        return replace(request, prompt=self.asked(request.prompt), prompt_token_ids=ids)


def _levels(levels: object) -> object:
    if not isinstance(levels, dict):
        return levels
    named = {level_name(name): how for name, how in levels.items()}
    for name in named:
        if not isinstance(name, str) or _LEVEL.fullmatch(name) is None:
            raise ValueError(f"a level is named like off, low or high, found {str(name)[:40]!r}")
    if len(named) < 2:
        raise ValueError("write at least two levels, such as off and high")
    return named


Levels = Annotated[dict[str, Thinking], BeforeValidator(_levels)]
