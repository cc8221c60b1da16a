"""Requests drawn from length distributions: plain ones, and conversations with shared prefixes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import count

import numpy as np

from tuner.load.arrivals import ARRIVAL_DECIMALS, drawn_arrivals_s
from tuner.load.draws import Draws
from tuner.load.lengths import IntArray
from tuner.load.workload_spec import COUNTING_TOKENS, FIRST_TOKEN_ID, WorkloadSpec
from tuner.records import Request, TokenArray

BLOCK_REQUESTS = 64
_KEPT_TOKENS = 2**25  # at most 128 MiB of prompts are kept in memory

# Each kind of draw has its own place beside the seed, so that none follows another.
_PREFIXES, _CONVERSATIONS, _SIZES = 2, 3, 6


class PlainStream:
    """Requests that have nothing in common."""

    def __init__(self, spec: WorkloadSpec, draws: Draws) -> None:
        assert spec.prompt_tokens is not None
        assert spec.output_tokens is not None
        self._spec = spec
        self._draws = draws
        self._block_requests = draws.block_requests or BLOCK_REQUESTS
        self._prompt_tokens = spec.prompt_tokens
        self._output_tokens = spec.output_tokens
        self.max_request_tokens = spec.prompt_tokens.max + spec.output_tokens.max
        # The first requests are kept, so that the trials of a study do not draw them again.
        self._blocks: dict[int, tuple[Request, ...]] = {}
        self._kept_blocks = 1 + _KEPT_TOKENS // (self._block_requests * spec.prompt_tokens.max)

    def requests(self) -> Iterator[Request]:
        """Return a fresh iterator from the first request; it does not end."""
        start_s = 0.0
        for index in count():
            block = self._blocks.get(index)
            if block is None:
                block = self._draw_block(index, start_s)
                if index < self._kept_blocks:
                    self._blocks[index] = block
            yield from block
            start_s = block[-1].arrival_s

    def _draw_block(self, index: int, start_s: float) -> tuple[Request, ...]:
        rng = np.random.default_rng([self._spec.seed, index])
        draws, size = self._draws, self._block_requests
        prompt_lengths = draws.lengths(self._prompt_tokens, rng, size)
        output_lengths = draws.lengths(self._output_tokens, rng, size).tolist()
        gaps_s = draws.gaps_s("poisson", rng, size)
        arrivals_s = np.round(start_s + np.cumsum(gaps_s), ARRIVAL_DECIMALS).tolist()
        first_id = index * size
        prompts = self._draw_prompts(rng, first_id, prompt_lengths)
        return tuple(
            Request(first_id + i, arrivals_s[i], prompts[i], output_lengths[i]) for i in range(size)
        )

    def _draw_prompts(
        self, rng: np.random.Generator, first_id: int, lengths: IntArray
    ) -> list[TokenArray]:
        ends = np.cumsum(lengths)
        tokens = rng.integers(FIRST_TOKEN_ID, self._spec.vocab_size, ends[-1], dtype=np.int32)
        starts = ends - lengths
        # The request's number in base `base`, lowest digit first: even the first block of two
        # neighbouring prompts differs, so none is found in a prefix cache.
        base = self._spec.vocab_size - FIRST_TOKEN_ID
        offsets = np.random.default_rng(self._spec.seed).integers(0, base, COUNTING_TOKENS)
        rest = first_id + np.arange(len(lengths))
        for place in range(COUNTING_TOKENS):
            tokens[starts + place] = FIRST_TOKEN_ID + (rest + offsets[place]) % base
            rest //= base
        tokens.setflags(write=False)
        return np.split(tokens, ends[:-1])


class CountedTokens:
    """Draws pieces of prompts that begin with a number, so that no two are alike by accident."""

    def __init__(self, seed: int, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._base = vocab_size - FIRST_TOKEN_ID
        offsets = np.random.default_rng(seed).integers(0, self._base, COUNTING_TOKENS)
        self._offsets: list[int] = offsets.tolist()

    def draw(self, rng: np.random.Generator, number: int, length: int) -> TokenArray:
        """Return `length` ids; as many as fit of the first four spell the number."""
        tokens = rng.integers(FIRST_TOKEN_ID, self._vocab_size, length, dtype=np.int32)
        for place in range(min(COUNTING_TOKENS, length)):
            tokens[place] = FIRST_TOKEN_ID + (number + self._offsets[place]) % self._base
            number //= self._base
        return tokens


class ConversationStream:
    """Conversations of one turn or more, behind a system prompt or not.

    As many conversations are under way as `turns.conversations`, and take turns.
    """

    def __init__(self, spec: WorkloadSpec, draws: Draws) -> None:
        assert spec.prompt_tokens is not None
        assert spec.output_tokens is not None
        self._spec = spec
        self._draws = draws
        self._prompt_tokens = spec.prompt_tokens
        self._output_tokens = spec.output_tokens
        self._turns = spec.turns
        self._counted = CountedTokens(spec.seed, spec.vocab_size)
        self._prefixes: dict[int, TokenArray] = {}
        self.max_request_tokens = self._longest_prompt() + spec.output_tokens.max

    def _longest_prompt(self) -> int:
        if self._turns is None:
            return self._spec.first_prompt_max
        if self._turns.max_prompt_tokens is not None:
            return self._turns.max_prompt_tokens
        turn = self._prompt_tokens.max + self._output_tokens.max
        return self._spec.first_prompt_max + (self._turns.max - 1) * turn

    def requests(self) -> Iterator[Request]:
        """Return a fresh iterator from the first request; it does not end."""
        numbers, sizes = count(), self._sizes()
        under_way = 1 if self._turns is None else self._turns.conversations
        waiting = deque(self._conversation(next(numbers), sizes) for _ in range(under_way))
        arrivals_s = drawn_arrivals_s("poisson", self._spec.seed, self._draws)
        for request_id, arrival_s in enumerate(arrivals_s):
            turn = next(waiting[0], None)
            if turn is None:
                waiting[0] = self._conversation(next(numbers), sizes)
                turn = next(waiting[0])
            waiting.rotate(-1)
            yield Request(request_id, arrival_s, *turn)

    def _sizes(self) -> Iterator[tuple[int, int]] | None:
        """Yield stratified lengths in the order of the requests; None if each is drawn alone."""
        size = self._draws.block_requests
        return None if size is None else self._blocks_of_sizes(size)

    def _blocks_of_sizes(self, size: int) -> Iterator[tuple[int, int]]:
        for index in count():
            rng = np.random.default_rng([self._spec.seed, _SIZES, index])
            prompts = self._draws.lengths(self._prompt_tokens, rng, size)
            outputs = self._draws.lengths(self._output_tokens, rng, size)
            yield from zip(prompts.tolist(), outputs.tolist(), strict=True)

    def _size(
        self, rng: np.random.Generator, sizes: Iterator[tuple[int, int]] | None
    ) -> tuple[int, int]:
        """Return the tokens that the next turn asks and gets."""
        if sizes is not None:
            return next(sizes)
        prompt = self._draws.lengths(self._prompt_tokens, rng, 1)
        return int(prompt[0]), int(self._draws.lengths(self._output_tokens, rng, 1)[0])

    def _conversation(
        self, number: int, sizes: Iterator[tuple[int, int]] | None
    ) -> Iterator[tuple[TokenArray, int]]:
        """Yield each turn's prompt and output tokens; at least one."""
        rng = np.random.default_rng([self._spec.seed, _CONVERSATIONS, number])
        turns, limit = 1, None
        if self._turns is not None:
            turns = min(int(rng.geometric(1.0 / self._turns.mean)), self._turns.max)
            limit = self._turns.max_prompt_tokens
        said = self._prefix(rng)
        for turn in range(turns):
            length, output_tokens = self._size(rng, sizes)
            if turn == 0:
                asked = self._counted.draw(rng, number, length)
            elif limit is not None and len(said) + length > limit:
                return
            else:
                asked = self._draw(rng, length)
            prompt = np.concatenate([said, asked])
            prompt.setflags(write=False)
            yield prompt, output_tokens
            said = np.concatenate([prompt, self._draw(rng, output_tokens)])

    def _prefix(self, rng: np.random.Generator) -> TokenArray:
        shared = self._spec.shared_prefix
        if shared is None:
            return np.empty(0, dtype=np.int32)
        group = int(rng.integers(shared.groups))
        if group not in self._prefixes:
            prefix_rng = np.random.default_rng([self._spec.seed, _PREFIXES, group])
            self._prefixes[group] = self._counted.draw(prefix_rng, group, shared.tokens)
        return self._prefixes[group]

    def _draw(self, rng: np.random.Generator, length: int) -> TokenArray:
        return rng.integers(FIRST_TOKEN_ID, self._spec.vocab_size, length, dtype=np.int32)
