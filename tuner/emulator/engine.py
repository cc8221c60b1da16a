"""The engine: vLLM V1's scheduling on a clock of its own.

Running sequences first, then waiting ones in order; a token budget for each step; prefills in
chunks; cache blocks of 16 tokens; the sequence admitted last is preempted when blocks run out, and
computed anew. Steps in which the same sequences only decode are taken together, so the cost of a
simulation grows with the events in it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from tuner.emulator.launch_rules import BLOCK_TOKENS, Launch
from tuner.emulator.power import PowerModel, StepCost
from tuner.emulator.sequences import DecodePool, Sequence
from tuner.emulator.step import Batch, StepModel, StepParts
from tuner.emulator.step_log import StepLog

_MOST_STEPS_AT_ONCE = 4096


class EngineStalledError(Exception):
    """Requests wait and none can ever be scheduled: a defect of the emulator."""


@dataclass(slots=True)
class Counters:
    """What the server reports as totals."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0


class Engine:
    """Runs sequences; `clock_s` is the end of the last step."""

    def __init__(
        self,
        launch: Launch,
        steps: StepModel,
        power: PowerModel,
        *,
        jitter: float = 0.0,
        seed: int = 0,
        keep_log: bool = True,
    ) -> None:
        self.launch = launch
        self.clock_s = 0.0
        self.energy_j = 0.0
        self.power_w = power.idle_w * launch.tensor_parallel_size
        self.step_count = 0
        self.free_blocks = launch.kv_blocks
        self.counters = Counters()
        self.log = StepLog() if keep_log else None
        self._steps = steps
        self._power = power
        self._jitter = jitter
        self._random = np.random.default_rng(seed)
        self._waiting: deque[Sequence] = deque()
        self._running: dict[Sequence, None] = {}  # in order of admission
        self._prefilling: Sequence | None = None  # the one that the budget cut
        self._decoding = DecodePool()

    @property
    def running(self) -> int:
        """Number of admitted sequences."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of sequences that wait for admission."""
        return len(self._waiting)

    @property
    def cache_usage(self) -> float:
        """Share of the cache's blocks in use."""
        return 1.0 - self.free_blocks / self.launch.kv_blocks

    @property
    def idle_w(self) -> float:
        """Power of all its GPUs with nothing to do."""
        return self._power.idle_w * self.launch.tensor_parallel_size

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; it can be scheduled from the next step on."""
        self._waiting.append(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; one that is done already stays done."""
        if sequence in self._running:
            self._release(sequence)
        elif not sequence.done:
            self._waiting.remove(sequence)
        sequence.done = True

    def advance(self, until_s: float, max_steps: int | None = None) -> list[Sequence]:
        """Run until a sequence ends, `max_steps` are done, or the clock is at or past `until_s`.

        Steps are whole, so the clock may pass `until_s`; with nothing to do it idles up to it.
        Returns the sequences that ended with the last step.
        """
        last_step = None if max_steps is None else self.step_count + max_steps
        while self.clock_s < until_s and (last_step is None or self.step_count < last_step):
            if not self._running and not self._waiting:
                self.idle(until_s)
                return []
            self._make_room()
            if self._prefilling is not None or self._admissible():
                self._mixed_step()
            else:
                most = _MOST_STEPS_AT_ONCE if last_step is None else last_step - self.step_count
                self._decode_steps(until_s, most)
            finished = self._collect()
            if finished:
                return finished
        return []

    def idle(self, until_s: float) -> None:
        """Let time pass without a step."""
        if not math.isfinite(until_s):
            raise EngineStalledError("nothing to do and nothing to wait for")
        self.power_w = self.idle_w
        self.energy_j += self.power_w * max(until_s - self.clock_s, 0.0)
        self.clock_s = max(until_s, self.clock_s)
        self.step_count += 1
        if self.log is not None:
            self.log.append(self.clock_s, self.energy_j, 0, len(self._waiting))

    def _make_room(self) -> None:
        """Preempt the sequences admitted last until the next step's blocks are there.

        The room is never enough to admit one of them in the same step, so none is, as in vLLM.
        """
        while self._decoding.blocks_needed(self.step_count, 1) > self.free_blocks:
            last = next(reversed(self._running))
            self._release(last)
            self._waiting.appendleft(last)
            self.counters.preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        del self._running[sequence]
        if sequence is self._prefilling:
            self._prefilling = None
            self.free_blocks += sequence.blocks
        else:
            cached = self._decoding.remove(sequence, self.step_count)
            self.free_blocks += -(-cached // BLOCK_TOKENS)
        sequence.computed = 0

    def _admissible(self) -> bool:
        """Say whether the next step can take the first waiting sequence."""
        if not self._waiting or len(self._running) >= self.launch.max_num_seqs:
            return False
        first = self._waiting[0]
        budget = self.launch.max_num_batched_tokens - self._decoding.count
        if budget <= 0 or (not self.launch.chunked_prefill and first.prefill_tokens > budget):
            return False
        spare = self.free_blocks - self._decoding.blocks_needed(self.step_count, 1)
        return -(-first.prefill_tokens // BLOCK_TOKENS) <= spare

    def _take_prefills(self, budget: int) -> list[tuple[Sequence, int]]:
        """Choose the prefill chunks of a step, admitting what fits."""
        chunks: list[tuple[Sequence, int]] = []
        if self._prefilling is not None:
            rest = self._prefilling.prefill_tokens - self._prefilling.computed
            chunks.append((self._prefilling, min(rest, budget)))
            budget -= chunks[0][1]
        while self._waiting and budget > 0 and len(self._running) < self.launch.max_num_seqs:
            first = self._waiting[0]
            blocks = -(-first.prefill_tokens // BLOCK_TOKENS)
            whole = first.prefill_tokens <= budget or self.launch.chunked_prefill
            if blocks > self.free_blocks or not whole:
                break
            self._running[self._waiting.popleft()] = None
            self.free_blocks -= blocks
            first.blocks = blocks
            chunks.append((first, min(first.prefill_tokens, budget)))
            budget -= chunks[-1][1]
        return chunks

    def _mixed_step(self) -> None:
        """Run one step in which at least one prefill takes part."""
        pool = self._decoding
        self.free_blocks -= pool.blocks_needed(self.step_count, 1)
        chunks = self._take_prefills(self.launch.max_num_batched_tokens - pool.count)
        complete = sum(s.computed + chunk == s.prefill_tokens for s, chunk in chunks)
        parts = self._steps.parts(
            Batch(
                decode_sequences=pool.count,
                decode_context_tokens=pool.context_tokens + pool.count,
                prefill_tokens=sum(chunk for _, chunk in chunks),
                prefill_pairs=sum(chunk * (s.computed + 0.5 * chunk) for s, chunk in chunks),
                prefill_context_tokens=sum(s.computed + chunk for s, chunk in chunks),
                sampled_sequences=pool.count + complete,
                scheduled_sequences=pool.count + len(chunks),
            )
        )
        step = self.step_count
        self._one_step(self._power.step(parts), pool.count + complete)
        self._prefilling = None
        for sequence, chunk in chunks:
            sequence.computed += chunk
            if sequence.computed < sequence.prefill_tokens:
                self._prefilling = sequence
                continue
            if sequence.generated == 0:
                self.counters.prompt_tokens += sequence.prompt_tokens
            pool.add(sequence, step)

    def _one_step(self, cost: StepCost, tokens: int) -> None:
        duration_s = cost.duration_s
        if self._jitter:
            duration_s *= math.exp(self._jitter * self._random.standard_normal())
        self.power_w = cost.power_w * self.launch.tensor_parallel_size
        self.clock_s += duration_s
        self.energy_j += self.power_w * duration_s
        self.step_count += 1
        self._decoding.ran(1)
        self.counters.generation_tokens += tokens
        if self.log is not None:
            self.log.append(self.clock_s, self.energy_j, len(self._running), len(self._waiting))

    def _decode_steps(self, until_s: float, most: int) -> None:
        """Run steps in which the same sequences decode, up to the next end of one or `until_s`."""
        pool = self._decoding
        finish = pool.next_finish()
        if finish is None:
            raise EngineStalledError(f"{len(self._waiting)} requests wait and none fits")
        first = self._steps.parts(self._decode_batch(0))
        cost = self._power.step(first)
        count = min(finish - self.step_count + 1, most)
        if math.isfinite(until_s):
            count = min(count, math.ceil((until_s - self.clock_s) / cost.duration_s))
        while count > 1 and pool.blocks_needed(self.step_count, count) > self.free_blocks:
            count //= 2
        if count > 1:
            self._many_steps(first, count, until_s)
            return
        self.free_blocks -= pool.blocks_needed(self.step_count, 1)
        self._one_step(cost, pool.count)

    def _many_steps(self, first: StepParts, count: int, until_s: float) -> None:
        """Run up to `count` steps of the decoding sequences alone, at one clock.

        Only the contexts grow from step to step, and time and energy are linear in them.
        """
        last = self._steps.parts(self._decode_batch(count - 1))
        clock_mhz = min(self._power.clock_for(first), self._power.clock_for(last))
        ends = [self._power.at_clock(parts, clock_mhz) for parts in (first, last)]
        durations_s = np.linspace(ends[0].duration_s, ends[1].duration_s, count)
        gpus = self.launch.tensor_parallel_size
        step_j = [gpus * cost.power_w * cost.duration_s for cost in ends]
        energies_j = np.linspace(step_j[0], step_j[1], count)
        if self._jitter:
            factors = np.exp(self._jitter * self._random.standard_normal(count))
            durations_s *= factors
            energies_j *= factors
        ends_s = self.clock_s + np.cumsum(durations_s)
        count = min(count, int(np.searchsorted(ends_s, until_s)) + 1)
        used_j = self.energy_j + np.cumsum(energies_j[:count])
        self.free_blocks -= self._decoding.blocks_needed(self.step_count, count)
        self.power_w = float(energies_j[count - 1] / durations_s[count - 1])
        self.clock_s = float(ends_s[count - 1])
        self.energy_j = float(used_j[-1])
        self.step_count += count
        self._decoding.ran(count)
        self.counters.generation_tokens += count * self._decoding.count
        if self.log is not None:
            self.log.extend(ends_s[:count], used_j, len(self._running), len(self._waiting))

    def _decode_batch(self, ahead: int) -> Batch:
        """Return the batch of the decoding sequences `ahead` steps after the next one."""
        count = self._decoding.count
        return Batch(
            decode_sequences=count,
            decode_context_tokens=self._decoding.context_tokens + count * (ahead + 1),
            sampled_sequences=count,
            scheduled_sequences=count,
        )

    def _collect(self) -> list[Sequence]:
        finished = self._decoding.pop_finished(self.step_count)
        for sequence in finished:
            self._release(sequence)
            sequence.done = True
        return finished
