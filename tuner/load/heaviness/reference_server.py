"""Reference server: what a stretch of requests does to the latencies of a simple engine.

The engine is one of continuous batching with chunked prefill: a step gives every answer its next
token, and prompts, first come first served, what is left of the tokens of a step. A step takes
longer by what it has to do. Nothing is measured: what a stretch does to it is known in advance, and
much of what the same stretch does to a real server is that.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

# What takes as long as an empty step: prompt tokens, limited by compute where the step is by
# memory, and sequences whose cache is read.
_PROMPT_TOKENS, _SEQUENCES = 256, 256
_MOST_TOKENS = 2048  # of a step


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request: when it arrives, s, its prompt and its answer, tokens (1 or more each)."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


def tpots_s(
    arrivals: Iterable[Arrival], step_s: float, start_s: float, end_s: float
) -> list[float]:
    """Return the TPOT of each answer that ends in a window, s; an empty step takes `step_s`.

    Arrivals are in order of time.
    """
    return _Engine(deque(a for a in arrivals if a.at_s < end_s), step_s).run(start_s, end_s)


class _Engine:
    def __init__(self, arrivals: deque[Arrival], step_s: float) -> None:
        self._arrivals, self._step_s = arrivals, step_s
        self._now_s, self._steps = 0.0, 0
        self._prompts: deque[list[int]] = deque()  # tokens left of a prompt, tokens of its answer
        self._answers: list[tuple[int, float, int]] = []  # last step, first token at, further ones

    def run(self, start_s: float, end_s: float) -> list[float]:
        found: list[float] = []
        while self._now_s < end_s:
            self._admit()
            if not self._prompts and not self._answers:
                if not self._arrivals:
                    break
                self._now_s = self._arrivals[0].at_s
                continue
            self._advance()
            ended = self._ended()
            if start_s < self._now_s <= end_s:
                found.extend(ended)
        return found

    def _admit(self) -> None:
        while self._arrivals and self._arrivals[0].at_s <= self._now_s:
            new = self._arrivals.popleft()
            self._prompts.append([new.prompt_tokens, new.output_tokens])

    def _advance(self) -> None:
        """Take a step with prompts, or all steps until an answer ends or a request arrives."""
        sequences = len(self._answers)
        plain_s = self._step_s * (1.0 + sequences / _SEQUENCES)
        if not self._prompts:
            count = self._answers[0][0] - self._steps
            if self._arrivals:
                until_s = self._arrivals[0].at_s - self._now_s
                count = min(count, int(until_s / plain_s) + 1)
            self._steps += count
            self._now_s += count * plain_s
            return
        room, started = max(_MOST_TOKENS - sequences, 1), []
        left = room
        while self._prompts and left:
            prompt = self._prompts[0]
            taken = min(prompt[0], left)
            prompt[0] -= taken
            left -= taken
            if not prompt[0]:
                started.append(self._prompts.popleft()[1])
        self._steps += 1
        self._now_s += plain_s + self._step_s * (room - left) / _PROMPT_TOKENS
        for output_tokens in started:
            if output_tokens > 1:
                entry = (self._steps + output_tokens - 1, self._now_s, output_tokens - 1)
                heapq.heappush(self._answers, entry)

    def _ended(self) -> list[float]:
        """Remove the answers whose last token has come; return their TPOT, s."""
        found = []
        while self._answers and self._answers[0][0] <= self._steps:
            _, first_s, further = heapq.heappop(self._answers)
            found.append((self._now_s - first_s) / further)
        return found
