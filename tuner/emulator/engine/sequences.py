"""The requests inside an engine, and the sums over them that a step needs."""

from __future__ import annotations

import heapq

from tuner.emulator.cache_memory import BLOCK_TOKENS
from tuner.emulator.engine.answers import Answers
from tuner.records import TokenArray

_BLOCK_BYTES = 4 * BLOCK_TOKENS
_NEVER = 2**62  # a step that no run reaches


class Sequence:
    """One request in the engine. While it decodes it gets one token at the end of every step.

    Without a `prompt` it has a length only, and nothing of it is found in a prefix cache.
    """

    __slots__ = (
        "_keys",
        "_text",
        "answers",
        "cached_tokens",
        "computed",
        "decode_from",
        "done",
        "entries",
        "generated",
        "order",
        "output_tokens",
        "preemptions",
        "prompt",
        "prompt_tokens",
        "request_id",
        "seed",
        "segments",
        "started_decode_step",
    )

    def __init__(
        self,
        request_id: int,
        prompt_tokens: int,
        output_tokens: int,
        prompt: TokenArray | None = None,
        answers: Answers | None = None,
        seed: int | None = None,
    ) -> None:
        self.request_id = request_id
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.prompt = prompt
        self.answers = answers
        self.seed = seed  # of a sampled answer
        self.computed = 0  # tokens in the cache, while it is not in the decode pool
        self.cached_tokens = 0  # of the prompt, found in the prefix cache
        self.entries: list[int] = []  # of the block pool, held by it
        self.order = 0  # of admission
        self.preemptions = 0
        self.generated = 0  # tokens of closed segments
        self.started_decode_step: int | None = None  # the step that gave this segment's first token
        self.decode_from = 0  # tokens in the cache when this segment began
        self.segments: list[tuple[int, int]] = []  # (step of the first token, tokens)
        self.done = False
        self._keys: list[int] = []
        self._text: bytes | None = None

    @property
    def prefill_tokens(self) -> int:
        """Tokens to compute before the next one can be sampled; more after a preemption."""
        return self.prompt_tokens + self.generated

    def tokens_by(self, steps: int) -> int:
        """Output tokens after `steps` steps of the engine."""
        if self.started_decode_step is None:
            return self.generated
        return self.generated + steps - self.started_decode_step

    def close_segment(self, steps: int) -> None:
        """Turn the tokens of the running segment into a closed one."""
        if self.started_decode_step is not None:
            tokens = steps - self.started_decode_step
            self.segments.append((self.started_decode_step, tokens))
            self.generated += tokens
            self.started_decode_step = None

    def first_key(self) -> int | None:
        """Return the hash of its first block; None if it never fills one, or has no prompt."""
        if self._keys:
            return self._keys[0]
        if self.prompt is None or self.prompt_tokens + self.output_tokens < BLOCK_TOKENS:
            return None
        if self.prompt_tokens < BLOCK_TOKENS:
            return self.keys(1)[0]
        text = self.prompt[:BLOCK_TOKENS].astype("<i4", copy=False).tobytes()
        self._keys.append(hash((0, text)))
        return self._keys[0]

    def keys(self, blocks: int) -> list[int]:
        """Return the hash of each of the first `blocks` full blocks, or more; [] without a prompt.

        A hash says what is in its block and in all before it.
        """
        known = self._keys
        if self.prompt is None or len(known) >= blocks:
            return known
        if self._text is None:
            self._text = self.prompt.astype("<i4", copy=False).tobytes()
        if blocks * _BLOCK_BYTES > len(self._text) and self.answers is not None:
            answer = self.answers.tokens(self.prompt, self.output_tokens, self.seed)
            self._text += answer.tobytes()
        text, parent = self._text, known[-1] if known else 0
        for start in range(len(known) * _BLOCK_BYTES, blocks * _BLOCK_BYTES, _BLOCK_BYTES):
            parent = hash((parent, text[start : start + _BLOCK_BYTES]))
            known.append(parent)
        return known


class DecodePool:
    """The decoding sequences as sums, so that a step costs the same whatever their number.

    A sequence that begins with c cached tokens at step s needs a new block at each step i with
    (c + i - s - 1) % 16 == 0, so sixteen counters say how many blocks any step needs.
    """

    def __init__(self) -> None:
        self.count = 0
        self.context_tokens = 0  # in the cache, before the next step
        self._phases = [0] * BLOCK_TOKENS
        self._finishing: list[tuple[int, int, Sequence]] = []
        self._next_finish = _NEVER
        self._order = 0

    def add(self, sequence: Sequence, step: int) -> None:
        """Let a sequence that got a token at the end of `step` decode from the next one."""
        generated = sequence.generated
        start = sequence.prompt_tokens + generated
        sequence.started_decode_step = step
        sequence.decode_from = start
        self.count += 1
        self.context_tokens += start
        self._phases[(start - step - 1) % BLOCK_TOKENS] += 1
        last = step + sequence.output_tokens - generated - 1
        self._order += 1
        heapq.heappush(self._finishing, (last, self._order, sequence))
        if last < self._next_finish:
            self._next_finish = last

    def remove(self, sequence: Sequence, steps: int) -> int:
        """Take a sequence out after `steps` steps; returns the tokens it had in the cache."""
        started, start = sequence.started_decode_step, sequence.decode_from
        assert started is not None
        cached = start + steps - started - 1
        self.count -= 1
        self.context_tokens -= cached
        self._phases[(start - started - 1) % BLOCK_TOKENS] -= 1
        sequence.close_segment(steps)
        self._forget_stale()
        return cached

    @staticmethod
    def cached_tokens(sequence: Sequence, steps: int) -> int:
        """Return how many tokens of a decoding sequence are in the cache after `steps` steps."""
        assert sequence.started_decode_step is not None
        return sequence.decode_from + steps - sequence.started_decode_step - 1

    def ran(self, steps: int) -> None:
        """Every sequence computed one token in each of `steps` steps."""
        self.context_tokens += self.count * steps

    def blocks_needed(self, first_step: int, steps: int) -> int:
        """New blocks for the steps from `first_step` on."""
        if steps == 1:
            return self._phases[-first_step % BLOCK_TOKENS]
        rounds, rest = divmod(steps, BLOCK_TOKENS)
        partly = sum([self._phases[-(first_step + i) % BLOCK_TOKENS] for i in range(rest)])
        return rounds * self.count + partly

    def next_finish(self) -> int | None:
        """The step at whose end the next sequence has all its tokens."""
        return None if self._next_finish == _NEVER else self._next_finish

    def pop_finished(self, steps: int) -> list[Sequence]:
        """Return the sequences that have all their tokens after `steps` steps."""
        finished: list[Sequence] = []
        while self._next_finish < steps:
            finished.append(heapq.heappop(self._finishing)[2])
            self._forget_stale()
        return finished

    def _forget_stale(self) -> None:
        """Drop what a preemption, an abort or an end has made wrong; what is first then is next."""
        finishing = self._finishing
        while finishing:
            last, _, sequence = finishing[0]
            started = sequence.started_decode_step
            if started is not None and (
                last == started + sequence.output_tokens - sequence.generated - 1
            ):
                self._next_finish = last
                return
            heapq.heappop(finishing)
        self._next_finish = _NEVER
