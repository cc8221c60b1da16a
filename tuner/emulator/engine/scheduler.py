"""vLLM V1's scheduler: what each step works on.

Running sequences first, in the order of their admission, then waiting ones; a token budget for each
step; prefills in chunks; blocks of 16 tokens. If blocks run out, the sequence admitted last is
preempted and computed again, and nothing is admitted in that step. Compared step by step with
vLLM's own class in `tests/emulator/engine/test_real_scheduler.py`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from tuner.emulator.cache_memory import BLOCK_TOKENS
from tuner.emulator.engine.block_pool import BlockPool, blocks_of
from tuner.emulator.engine.sequences import DecodePool, Sequence
from tuner.emulator.launch_rules import Launch

_WAITING_WEIGHT = 4


class Chunk(NamedTuple):
    """Tokens of a prefill, after `start` tokens that are in the cache already."""

    sequence: Sequence
    start: int
    tokens: int

    @property
    def completes(self) -> bool:
        """Whether the step samples a token of the sequence."""
        return self.start + self.tokens == self.sequence.prefill_tokens


@dataclass(slots=True)
class Counters:
    """What the server reports as totals."""

    prompt_tokens: int = 0
    generation_tokens: int = 0


@dataclass(slots=True)
class CacheCounters:
    """Prompt tokens looked up in the prefix cache when first admitted, and those found."""

    queries: int = 0
    hits: int = 0


class Scheduler:
    """Sequences that wait and run, and the blocks that they hold.

    A step is `schedule`, then `ran`. With asynchronous scheduling a step is decided while the one
    before still runs: what that one finishes keeps its place and blocks for one step more, and
    what arrived during it is not seen yet.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.max_num_seqs = launch.max_num_seqs
        self.max_num_batched_tokens = launch.max_num_batched_tokens
        self.blocks = BlockPool(launch.kv_blocks, caching=launch.prefix_caching)
        self.decoding = DecodePool()
        self.running: dict[Sequence, None] = {}  # in order of admission
        self.waiting: deque[Sequence] = deque()
        self.preemptions = 0
        self.cache = CacheCounters()
        self._arrived: deque[Sequence] = deque()  # not seen yet
        self._partial: dict[Sequence, None] = {}  # running, with more than a token to compute
        self._leaving: list[Sequence] = []  # finished, and not given back yet
        self._admitted = 0
        # nothing but a token for each decoding sequence, until something happens
        self.calm = False

    @property
    def running_count(self) -> int:
        """Sequences that are admitted and not done."""
        return len(self.running) - len(self._leaving)

    @property
    def waiting_count(self) -> int:
        """Sequences that wait for admission."""
        return len(self.waiting) + len(self._arrived)

    @property
    def load(self) -> int:
        """Sequences that run, and those that wait, which count for four each."""
        running = len(self.running) - len(self._leaving)
        return running + _WAITING_WEIGHT * (len(self.waiting) + len(self._arrived))

    @property
    def unsettled(self) -> bool:
        """Whether the next step is decided without knowing all that has happened."""
        return bool(self._leaving or self._arrived)

    @property
    def steady(self) -> bool:
        """Whether the next step is nothing but a token for each decoding sequence."""
        if self._partial or self._leaving or self._arrived:
            return False
        if self.decoding.count > self.max_num_batched_tokens:
            return False
        self.calm = self.admits_none
        return self.calm or not self._admits()

    @property
    def admits_none(self) -> bool:
        """Whether nothing waits, or there is no place, whatever becomes of the blocks."""
        return not self.waiting or len(self.running) >= self.max_num_seqs

    @property
    def spare_blocks(self) -> int:
        """Blocks that can be taken before something changes for the first waiting sequence.

        What it finds in the prefix cache is forgotten with them, and then it may be admitted by
        way of an answer that is being made.
        """
        if self.admits_none:
            return self.blocks.free
        return self.blocks.before_forgetting(self.blocks.hit(self.waiting[0]))

    def set_limits(self, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        """Change the limits from the next step on."""
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.calm = False

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.calm = False
        busy = self.launch.async_scheduling and self.running
        (self._arrived if busy else self.waiting).append(sequence)

    def abort(self, sequence: Sequence, step: int) -> None:
        """Forget a sequence that is not done."""
        self.calm = False
        if sequence in self.running:
            self._release(sequence, step)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        else:
            self._arrived.remove(sequence)

    def settle(self) -> None:
        """Catch up with the step that has ended, when there is no further one."""
        if not self._leaving and not self._arrived:
            return
        self.calm = False
        for sequence in self._leaving:
            del self.running[sequence]
            self.blocks.release(sequence, sequence.computed, sequence.computed)
        self._leaving.clear()
        self.waiting.extend(self._arrived)
        self._arrived.clear()

    def schedule(self, step: int) -> list[Chunk]:
        """Decide step number `step`: each decoding sequence gets a token, and these chunks run.

        Sequences that the budget or the blocks leave out are no longer among the decoding.
        """
        self.calm = False
        budget = self.max_num_batched_tokens
        chunks: list[Chunk] = []
        if not self._partial and not self.waiting and self.decoding.count <= budget:
            needed = self.decoding.blocks_needed(step, 1)
            if needed <= self.blocks.free:
                self.blocks.take(needed)
                self.settle()
                return chunks
        threshold = self._long_prefill_tokens()
        preemptions = self.preemptions
        if self._everything_fits(step, budget, threshold):
            self.blocks.take(self.decoding.blocks_needed(step, 1))
            budget -= self.decoding.count
            for sequence in self._partial:
                if budget > 0:
                    chunks.append(self._chunk(sequence, budget, threshold))
                    budget -= chunks[-1].tokens
        else:
            budget = self._walk(step, budget, threshold, chunks)
        if self.preemptions == preemptions:
            self._admit(step, budget, threshold, chunks)
        self.settle()
        return chunks

    def ran(self, step: int, chunks: list[Chunk]) -> None:
        """Note that the step is over."""
        self.decoding.ran(1)
        for chunk in chunks:
            chunk.sequence.computed = chunk.start + chunk.tokens
            if chunk.completes:
                del self._partial[chunk.sequence]
                self.decoding.add(chunk.sequence, step)

    def collect(self, steps: int) -> list[Sequence]:
        """Take out the sequences that have all their tokens after `steps` steps."""
        finished = self.decoding.pop_finished(steps)
        if not finished:
            return finished
        self.calm = False
        finished.sort(key=lambda sequence: sequence.order)
        for sequence in finished:
            sequence.computed = self.decoding.remove(sequence, steps)
            sequence.done = True
        self._leaving += finished
        if not self.launch.async_scheduling:
            self.settle()
        return finished

    def _long_prefill_tokens(self) -> int:
        """Return the most tokens of one prefill in a step; 0 for no such limit."""
        threshold = self.launch.long_prefill_token_threshold
        return threshold if len(self.running) + len(self.waiting) > 1 else 0

    def _everything_fits(self, step: int, budget: int, threshold: int) -> bool:
        """Say whether the order among the running sequences makes no difference."""
        count, partial = self.decoding.count, self._partial
        if len(partial) > 1 or count > budget:
            return False
        blocks = self.decoding.blocks_needed(step, 1)
        for sequence in partial:
            if sequence is not next(reversed(self.running)):
                return False
            end = sequence.computed + _chunk_tokens(sequence, budget - count, threshold)
            blocks += blocks_of(end) - blocks_of(sequence.computed)
        return blocks <= self.blocks.free

    def _walk(self, step: int, budget: int, threshold: int, chunks: list[Chunk]) -> int:
        """Schedule the running sequences one by one; returns the budget that is left."""
        order = [sequence for sequence in self.running if not sequence.done]
        index = 0
        while index < len(order):
            sequence = order[index]
            if budget == 0:
                self._park(sequence, step)
                index += 1
                continue
            decodes = sequence not in self._partial
            held = self._computed(sequence, step)
            tokens = 1 if decodes else _chunk_tokens(sequence, budget, threshold)
            needed = blocks_of(held + tokens) - blocks_of(held)
            while needed > self.blocks.free:
                last = next(reversed(self.running))
                self._preempt(last, step)
                if last in order:
                    order.remove(last)
                if last is sequence:
                    return budget
            if decodes:
                self.blocks.take(needed)
            else:
                chunks.append(self._chunk(sequence, budget, threshold))
            budget -= tokens
            index += 1
        return budget

    def _computed(self, sequence: Sequence, step: int) -> int:
        if sequence.started_decode_step is None:
            return sequence.computed
        return self.decoding.cached_tokens(sequence, step)

    def _park(self, sequence: Sequence, step: int) -> None:
        """Take a sequence that gets no token in this step out of the decoding ones."""
        if sequence not in self._partial:
            sequence.computed = self.decoding.remove(sequence, step)
            self._partial[sequence] = None

    def _preempt(self, sequence: Sequence, step: int) -> None:
        self.preemptions += 1
        if sequence.done:
            self._leaving.remove(sequence)
            del self.running[sequence]
            self.blocks.release(sequence, sequence.computed, sequence.computed)
            return
        self._release(sequence, step)
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence, step: int) -> None:
        """Take back a running sequence's place and blocks."""
        del self.running[sequence]
        if sequence in self._partial:
            del self._partial[sequence]
            known = sequence.computed
        else:
            sequence.computed = self.decoding.remove(sequence, step)
            known = sequence.computed - self.launch.async_scheduling  # one is still being made
        self.blocks.release(sequence, sequence.computed, known)
        sequence.computed = 0

    def _chunk(self, sequence: Sequence, budget: int, threshold: int) -> Chunk:
        """Take the blocks for a running sequence's next chunk."""
        start, tokens = sequence.computed, _chunk_tokens(sequence, budget, threshold)
        end = start + tokens
        self.blocks.take(blocks_of(end) - blocks_of(start))
        self.blocks.register(sequence, end)
        return Chunk(sequence, start, tokens)

    def _admits(self) -> bool:
        """Say whether a step would admit the first waiting sequence."""
        if self.admits_none:
            return False
        first = self.waiting[0]
        budget = self.max_num_batched_tokens - self.decoding.count
        hit = self.blocks.hit(first)
        if self._forerunners(first, hit):
            return True  # in some step to come, perhaps
        return self._fits(first, hit, budget, self._long_prefill_tokens())

    def _fits(self, first: Sequence, hit: list[int], budget: int, threshold: int) -> bool:
        """Say whether the whole prefill has room in the cache, and a chunk in the budget."""
        rest = first.prefill_tokens - len(hit) * BLOCK_TOKENS
        if budget <= 0:
            return False
        if not self.launch.chunked_prefill and _limited(rest, threshold) > budget:
            return False
        needed = blocks_of(first.prefill_tokens) - len(hit) + self.blocks.idle_among(hit)
        return needed <= self.blocks.free

    def _hit(self, first: Sequence, step: int) -> list[int]:
        """Look a sequence up, also in the answers that are being made.

        Those are given their hashes when they end, or here, where a prompt goes on like one.
        """
        hit = self.blocks.hit(first)
        if not self.blocks.may_share:
            return hit
        for sequence in self._forerunners(first, hit):
            made = self._computed(sequence, step)
            if sequence.started_decode_step is not None and not self.launch.async_scheduling:
                made += 1  # this step's token; otherwise the newest one is not known yet
            self.blocks.register(sequence, made)
            hit = self.blocks.hit(first)
        return hit

    def _forerunners(self, first: Sequence, hit: list[int]) -> list[Sequence]:
        """Return the running sequences whose answers a sequence repeats beyond what it hits."""
        place = len(hit)
        if not self.blocks.may_share or (first.prefill_tokens - 1) // BLOCK_TOKENS <= place:
            return []
        keys = first.keys(place + 1)
        return [
            sequence
            for sequence in self.running
            if keys
            and len(sequence.entries) <= place
            and (sequence.prompt_tokens + sequence.output_tokens) // BLOCK_TOKENS > place
            and sequence.keys(place + 1)[place : place + 1] == [keys[place]]
        ]

    def _admit(self, step: int, budget: int, threshold: int, chunks: list[Chunk]) -> None:
        while budget > 0 and self.waiting and len(self.running) < self.max_num_seqs:
            first = self.waiting[0]
            hit = self._hit(first, step)
            if not self._fits(first, hit, budget, threshold):
                return
            self.running[self.waiting.popleft()] = None
            self._partial[first] = None
            self._admitted += 1
            first.order = self._admitted
            self.blocks.adopt(first, hit)
            first.computed = len(hit) * BLOCK_TOKENS
            if first.preemptions == 0:
                first.cached_tokens = first.computed
                if self.blocks.caching:
                    self.cache.queries += first.prefill_tokens
                    self.cache.hits += first.computed
            chunks.append(self._chunk(first, budget, threshold))
            budget -= chunks[-1].tokens


def _limited(tokens: int, threshold: int) -> int:
    return min(tokens, threshold) if threshold else tokens


def _chunk_tokens(sequence: Sequence, budget: int, threshold: int) -> int:
    rest = sequence.prefill_tokens - sequence.computed
    return min(_limited(rest, threshold), budget)
