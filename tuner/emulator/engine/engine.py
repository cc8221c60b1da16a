"""The engine: vLLM V1's scheduling on a clock of its own.

Four ways of making a step, the fastest that applies, and all with the same outcome. Up to the next
end of a sequence or the time that the caller asks for, steps in which the same sequences decode
differ only in their contexts, and time and energy are linear in those: they are taken together, as
arrays (`_many_steps`). Copies that keep pace with each other go on one step at a time; those steps
are worked out ahead, also as arrays, and only counted (`stretch_ahead`), or made from the sums of
the decode pool (`_one_step`). Every other step is decided by the scheduler, sequence by sequence
(`_scheduled_step`). So the cost of a simulation grows with the events in it, not with its tokens.
"""

from __future__ import annotations

import math

from tuner.emulator.engine.answers import answers_of
from tuner.emulator.engine.decode_stretch import (
    MOST_STEPS,
    STEPS,
    DecodeCosts,
    DecodeStretch,
    Jitter,
    between,
)
from tuner.emulator.engine.power import PowerModel, StepCost
from tuner.emulator.engine.scheduler import CacheCounters, Chunk, Counters, Scheduler
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.engine.step import Batch, StepModel
from tuner.emulator.engine.step_log import StepLog
from tuner.emulator.launch_rules import Launch

_MOST_STEPS_AHEAD = 128
_LEAST_STEPS_AHEAD = 4  # fewer are not worth the arrays


class EngineStalledError(Exception):
    """Requests wait and none can ever be scheduled: a defect of the emulator."""


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
        self.answers = answers_of(steps.model, launch)
        self.clock_s = 0.0
        self.energy_j = 0.0
        self.power_w = power.idle_w * launch.tensor_parallel_size
        self.step_count = 0
        self.counters = Counters()
        self.log = StepLog() if keep_log else None
        self._scheduler = Scheduler(launch)
        self.steps = steps
        self._power = power
        self._decode_costs = DecodeCosts(steps, power)
        self._clock_mhz: float | None = None  # of the last step
        self._decode_clock_mhz: float | None = None  # near which that of the next such step is
        self._prefill_clock_mhz: float | None = None
        self._stretch: DecodeStretch | None = None
        self._gpus = launch.tensor_parallel_size
        self._jitter = Jitter(jitter, seed) if jitter else None

    @property
    def running(self) -> int:
        """Number of admitted sequences that are not done."""
        return self._scheduler.running_count

    @property
    def waiting(self) -> int:
        """Number of sequences that wait for admission."""
        return self._scheduler.waiting_count

    @property
    def load(self) -> int:
        """How busy it is, as vLLM's front weighs it; 0 if there is nothing to do."""
        return self._scheduler.load

    @property
    def free_blocks(self) -> int:
        """Blocks of the cache that no sequence holds."""
        return self._scheduler.blocks.free

    @property
    def cache_usage(self) -> float:
        """Share of the cache's blocks that sequences hold."""
        return 1.0 - self.free_blocks / self.launch.kv_blocks

    @property
    def preemptions(self) -> int:
        """How often a sequence was preempted."""
        return self._scheduler.preemptions

    @property
    def prefix_cache(self) -> CacheCounters:
        """Tokens looked up in the prefix cache, and found."""
        return self._scheduler.cache

    @property
    def limits(self) -> tuple[int, int]:
        """The most sequences, and the most tokens of a step, as set now."""
        return self._scheduler.max_num_seqs, self._scheduler.max_num_batched_tokens

    @property
    def idle_w(self) -> float:
        """Power of all its GPUs with nothing to do."""
        return self._power.idle_w * self.launch.tensor_parallel_size

    @property
    def idle_clock_mhz(self) -> float:
        """SM clock with nothing to do: the highest allowed one, as for `idle_w`."""
        return float(self._power.highest_clock_mhz)

    @property
    def clock_mhz(self) -> float:
        """SM clock of the last step; before the first one that of an idle GPU."""
        return self.idle_clock_mhz if self._clock_mhz is None else float(self._clock_mhz)

    def set_limits(self, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        """Change the limits from the next step on, as a live vLLM scheduler can.

        Nothing that runs is preempted: admission waits until there is room under the new limits.
        Raises `ValueError` for a limit below 1 or above the one of the launch.
        """
        for name, value, most in (
            ("max_num_seqs", max_num_seqs, self.launch.max_num_seqs),
            (
                "max_num_batched_tokens",
                max_num_batched_tokens,
                self.launch.max_num_batched_tokens,
            ),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name}={value}: the server was launched for 1 to {most}")
        self.catch_up()
        self._scheduler.set_limits(max_num_seqs, max_num_batched_tokens)

    def set_power(self, power: PowerModel) -> None:
        """Put its GPUs under another limit or locked clock from the next step on."""
        self.catch_up()
        self._power = power
        self._decode_costs = DecodeCosts(self.steps, power)
        self._stretch = None

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; it can be scheduled from the next step on."""
        self.catch_up()
        if sequence.answers is None:
            sequence.answers = self.answers
        self._scheduler.submit(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; one that is done already stays done."""
        self.catch_up()
        if not sequence.done:
            self._scheduler.abort(sequence, self.step_count)
        sequence.done = True

    def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; False, and nothing done, while a request is under way."""
        if self.running == 0:
            self._scheduler.settle()
        return self._scheduler.blocks.reset()

    def advance(self, until_s: float, max_steps: int | None = None) -> list[Sequence]:
        """Run until a sequence ends, `max_steps` are done, or the clock is at or past `until_s`.

        Steps are whole, so the clock may pass `until_s`; with nothing to do it idles up to it.
        Returns the sequences that ended with the last step.
        """
        self.catch_up()
        self._stretch = None
        scheduler = self._scheduler
        last_step = None if max_steps is None else self.step_count + max_steps
        while self.clock_s < until_s and (last_step is None or self.step_count < last_step):
            if not scheduler.load:
                self.idle(until_s)
                return []
            most = MOST_STEPS if last_step is None else last_step - self.step_count
            if not self._decode_steps(until_s, most):
                self._scheduled_step()
            finished = scheduler.collect(self.step_count)
            if finished:
                return finished
        return []

    def stretch_ahead(self) -> DecodeStretch | None:
        """Return the steps that it makes one by one until something happens to it, if any.

        Whoever counts some of them as made leaves it to the engine to take note of them when
        something happens; until then only `so_far` counts them, or after `catch_up` everything.
        The step at whose end a sequence ends is not among them.
        """
        scheduler, pool = self._scheduler, self._scheduler.decoding
        if self._stretch is not None and scheduler.calm:
            return self._stretch
        self.catch_up()
        self._stretch = None
        finish = pool.next_finish()
        if finish is None or not (scheduler.calm or (scheduler.steady and scheduler.calm)):
            return None
        count = min(finish - self.step_count, _MOST_STEPS_AHEAD)
        while count and pool.blocks_needed(self.step_count, count) > scheduler.blocks.free:
            count //= 2
        if count < _LEAST_STEPS_AHEAD:
            return None
        contexts = pool.context_tokens + pool.count * STEPS[1 : count + 1]
        cost = self._decode_costs.stretch(pool.count, contexts, self._decode_clock_mhz)
        if cost is None:
            return None
        factors = None if self._jitter is None else self._jitter.ahead(count)
        self._stretch = DecodeStretch(cost, self._gpus, factors, self.clock_s, self.energy_j)
        return self._stretch

    @property
    def so_far(self) -> tuple[float, float, int]:
        """Time, s, energy, J, and tokens generated, with the steps ahead that count as made."""
        clock_s, energy_j, tokens = self.clock_s, self.energy_j, self.counters.generation_tokens
        stretch = self._stretch
        if stretch is None or stretch.made == stretch.noted:
            return clock_s, energy_j, tokens
        made = stretch.made
        tokens += (made - stretch.noted) * self._scheduler.decoding.count
        return stretch.ends_s[made - 1], stretch.energies_j[made - 1], tokens

    def catch_up(self) -> None:
        """Take note of the steps of its stretch that count as made."""
        stretch = self._stretch
        if stretch is None or stretch.made == stretch.noted:
            return
        first, last = stretch.noted, stretch.made
        count, scheduler = last - first, self._scheduler
        pool = scheduler.decoding
        scheduler.blocks.take(pool.blocks_needed(self.step_count, count))
        self._clock_mhz = self._decode_clock_mhz = stretch.clock_mhz
        self.power_w = stretch.powers_w.item(last - 1)
        self.clock_s = stretch.ends_s[last - 1]
        self.energy_j = stretch.energies_j[last - 1]
        self.step_count += count
        pool.ran(count)
        self.counters.generation_tokens += count * pool.count
        if self._jitter is not None:
            self._jitter.skip(count)
        if self.log is not None:
            ends_s, used_j = (column[first:last] for column in stretch.columns)
            running, waiting = scheduler.running_count, scheduler.waiting_count
            self.log.extend(ends_s, used_j, running, waiting, stretch.clock_mhz)
        stretch.noted = last

    def idle(self, until_s: float) -> None:
        """Let time pass without a step."""
        if not math.isfinite(until_s):
            raise EngineStalledError("nothing to do and nothing to wait for")
        self.catch_up()
        self._scheduler.settle()
        self.power_w = self.idle_w
        self.energy_j += self.power_w * max(until_s - self.clock_s, 0.0)
        self.clock_s = max(until_s, self.clock_s)
        self.step_count += 1
        if self.log is not None:
            self.log.append(self.clock_s, self.energy_j, 0, self.waiting, self.idle_clock_mhz)

    def _scheduled_step(self) -> None:
        """Run one step that the scheduler decides in full; none if it only settles the last one."""
        scheduler, step = self._scheduler, self.step_count
        may_change = scheduler.unsettled
        preemptions = scheduler.preemptions
        chunks = scheduler.schedule(step)
        pool = scheduler.decoding
        if not chunks and pool.count == 0:
            if not may_change and scheduler.preemptions == preemptions:
                raise EngineStalledError(f"{self.waiting} requests wait and none fits")
            return
        if not chunks:
            self._one_step(self._decode_cost(0), pool.count)
        else:
            self._prefill_step(chunks)
        scheduler.ran(step, chunks)

    def _prefill_step(self, chunks: list[Chunk]) -> None:
        """Run a step of these chunks and of the decoding sequences."""
        pool = self._scheduler.decoding
        tokens, pairs, context_tokens, complete = 0, 0.0, 0, 0
        for chunk in chunks:
            sequence, start, count = chunk
            tokens += count
            pairs += count * (start + 0.5 * count)
            context_tokens += start + count
            if start + count == sequence.prefill_tokens:
                complete += 1
                if sequence.generated == 0:
                    self.counters.prompt_tokens += sequence.prompt_tokens
        parts = self.steps.parts(
            Batch(
                decode_sequences=pool.count,
                decode_context_tokens=pool.context_tokens + pool.count,
                prefill_tokens=tokens,
                prefill_pairs=pairs,
                prefill_context_tokens=context_tokens,
                sampled_sequences=pool.count + complete,
                scheduled_sequences=pool.count + len(chunks),
            )
        )
        cost = self._power.step(parts, self._prefill_clock_mhz)
        self._clock_mhz = self._prefill_clock_mhz = cost.clock_mhz
        self._one_step(cost, pool.count + complete)

    def _decode_cost(self, ahead: int) -> StepCost:
        """Return the cost of the decoding sequences' step, `ahead` steps after the next one."""
        pool = self._scheduler.decoding
        context_tokens = pool.context_tokens + pool.count * (ahead + 1)
        cost = self._decode_costs.step(pool.count, context_tokens, self._decode_clock_mhz)
        self._clock_mhz = self._decode_clock_mhz = cost.clock_mhz
        return cost

    def _one_step(self, cost: StepCost, tokens: int) -> None:
        duration_s = cost.duration_s
        if self._jitter is not None:
            duration_s *= self._jitter.factor()
        self.power_w = cost.power_w * self._gpus
        self.clock_s += duration_s
        self.energy_j += self.power_w * duration_s
        self.step_count += 1
        self.counters.generation_tokens += tokens
        if self.log is not None:
            running, waiting = self._scheduler.running_count, self._scheduler.waiting_count
            self.log.append(self.clock_s, self.energy_j, running, waiting, cost.clock_mhz)

    def _decode_steps(self, until_s: float, most: int) -> bool:
        """Run steps in which the same sequences decode, up to the next end of one or `until_s`.

        Returns False, and does nothing, if the next step has to be scheduled.
        """
        scheduler = self._scheduler
        pool, step = scheduler.decoding, self.step_count
        finish = pool.next_finish()
        if most == 1 or finish is None or not (scheduler.calm or scheduler.steady):
            return False
        count = min(finish - step + 1, most)
        cost = self._decode_cost(0)
        if until_s < math.inf:
            count = min(count, math.ceil((until_s - self.clock_s) / cost.duration_s))
        if count > 1:
            spare = scheduler.spare_blocks
            while count > 1 and pool.blocks_needed(step, count) > spare:
                count //= 2
        if count > 1:
            self._many_steps(cost, count, until_s)
            return True
        needed = pool.blocks_needed(step, 1)
        if not scheduler.calm or needed > scheduler.blocks.free:
            return False
        if needed:
            scheduler.blocks.take(needed)
        self._one_step(cost, pool.count)
        pool.ran(1)
        return True

    def _many_steps(self, first: StepCost, count: int, until_s: float) -> None:
        """Run up to `count` steps of the decoding sequences alone, at one clock.

        Only the contexts grow from step to step, and time and energy are linear in them.
        """
        scheduler = self._scheduler
        pool = scheduler.decoding
        last = self._decode_cost(count - 1)
        clock_mhz = min(first.clock_mhz, last.clock_mhz)
        costs, sequences, tokens = self._decode_costs, pool.count, pool.context_tokens
        if first.clock_mhz != clock_mhz:
            first = costs.at_clock(sequences, tokens + sequences, clock_mhz)
        if last.clock_mhz != clock_mhz:
            last = costs.at_clock(sequences, tokens + sequences * count, clock_mhz)
        factors = None if self._jitter is None else self._jitter.factors(count)
        durations_s, energies_j = between(first, last, count, self._gpus, factors)
        ends_s = self.clock_s + durations_s.cumsum()
        count = min(count, int(ends_s.searchsorted(until_s)) + 1)
        used_j = self.energy_j + energies_j[:count].cumsum()
        scheduler.blocks.take(pool.blocks_needed(self.step_count, count))
        self._clock_mhz = self._decode_clock_mhz = clock_mhz
        self.power_w = float(energies_j[count - 1] / durations_s[count - 1])
        self.clock_s = float(ends_s[count - 1])
        self.energy_j = float(used_j[-1])
        self.step_count += count
        pool.ran(count)
        self.counters.generation_tokens += count * pool.count
        if self.log is not None:
            running, waiting = scheduler.running_count, scheduler.waiting_count
            self.log.extend(ends_s[:count], used_j, running, waiting, clock_mhz)
