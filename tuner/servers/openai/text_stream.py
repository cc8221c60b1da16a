"""Parser of a streamed completion whose tokens only the server can count.

Servers without `return_token_ids` stream text: a chunk may hold several tokens, or a token may make
no text at all (half a character). So the tokens are those of `usage`, spread over the instants at
which text arrived; where usage comes with every chunk, each chunk has those that it added.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from tuner.records import FloatArray
from tuner.servers.openai.stream import CompletionStream

_TEXTS = ("content", "reasoning_content", "reasoning")


class TextStream(CompletionStream):
    """Follows an answer of text; with `stops` the server may end it before the tokens asked."""

    __slots__ = ("_counted", "_shares")

    def __init__(self, output_tokens: int, *, stops: bool) -> None:
        super().__init__(None, output_tokens, stops=stops)
        self._shares: list[int | None] = []  # by chunk with text: the tokens that usage says it had
        self._counted: int | None = None  # tokens so far, by usage

    def read_event(self, event: dict[str, Any], now_s: float) -> None:
        """Take in one event; may raise as indexing does."""
        if (error := event.get("error")) is not None:
            super().read_event({"error": error}, now_s)
            return
        usage = event.get("usage")
        choices = event.get("choices") if usage is not None else event["choices"]
        has_text = False
        if choices:
            choice = choices[0]
            delta = choice.get("delta") or {}
            has_text = bool(choice.get("text") or any(delta.get(name) for name in _TEXTS))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        if has_text:
            self._times_s.append(now_s)
            self._shares.append(None)
        if usage is not None:
            self._count(usage, has_text)

    def _count(self, usage: dict[str, Any], has_text: bool) -> None:
        prompt, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt, int) and prompt > 0:
            self.prompt_tokens = prompt
        if isinstance(made, bool) or not isinstance(made, int) or made < 0:
            return
        if has_text and made > (self._counted or 0):
            self._shares[-1] = made - (self._counted or 0)
        self._counted = max(made, self._counted or 0)
        if self._counted > self._asked:
            self.problem = f"too many tokens: {self._counted} of {self._asked} tokens"

    def close(self, now_s: float) -> None:
        """Take in that the stream has ended, spread the tokens, and give the verdict."""
        if self.problem is None:
            self._read_rest(now_s)
        if self.problem is None and self._finish_reason is not None:
            if self._counted is None:
                self.problem = (
                    "the server does not say how many tokens it made: no usage at the end of the "
                    "stream (it must support stream_options.include_usage)"
                )
            elif not self._times_s:
                self.problem = f"an answer without text, of {self._counted} tokens"
            else:
                self._times_s = array("d", self._spread(self._counted))
        super().close(now_s)

    def _spread(self, tokens: int) -> FloatArray:
        """Return a time for each token: of the chunks that had them, or in equal parts."""
        times = np.array(self._times_s)
        chunks = len(times)
        shares = self._shares
        if None not in shares and sum(share or 0 for share in shares) == tokens:
            return np.repeat(times, np.array(shares, dtype=np.int64))
        if tokens < chunks:
            return times[np.linspace(0, chunks - 1, tokens).round().astype(np.int64)]
        ends = np.arange(1, chunks + 1) * tokens // chunks
        return np.repeat(times, np.diff(ends, prepend=0))
