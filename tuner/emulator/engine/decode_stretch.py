"""Steps in which the same sequences decode: their costs, worked out ahead too, and their jitter."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tuner.catalog.gpu import CLOCK_STEP_MHZ
from tuner.emulator.engine.power import AtClock, PowerModel, StepCost, roofline_s
from tuner.emulator.engine.step import Decoding, StepModel
from tuner.records import FloatArray

_DRAWN_AT_ONCE = 1024
MOST_STEPS = 4096  # taken together
STEPS = np.arange(MOST_STEPS, dtype=np.float64)


class StretchCost(NamedTuple):
    """Time and mean power on one GPU of many steps, each of shape (steps,), and their clock."""

    durations_s: FloatArray
    powers_w: FloatArray
    clock_mhz: float


class _Fixed(NamedTuple):
    """What a number of decoding sequences and a clock decide, whatever the contexts are."""

    decoding: Decoding
    clock: AtClock
    shared: float  # of the shorter one of compute and memory time
    busy_s: float  # but for attention
    streaming_s: float
    compute_s: float
    memory_j_per_byte: float
    stall_w: float
    compute_w: float


class DecodeCosts:
    """Costs of steps in which some sequences decode, and nothing else.

    They equal those of `PowerModel.step`, to the last digit. Only attention depends on the
    contexts, so the rest is worked out once for each number of sequences and each clock.
    """

    def __init__(self, steps: StepModel, power: PowerModel) -> None:
        self._steps = steps
        self._power = power
        self._allowed_w = power.allowed_w
        self._low_mhz = power.gpu.min_clock_mhz
        self._high_mhz = power.highest_clock_mhz
        self._fixed: dict[tuple[int, float], _Fixed] = {}

    def at_clock(self, sequences: int, context_tokens: int, clock_mhz: float) -> StepCost:
        """Return time and power at a clock, whatever the limit is.

        `context_tokens` is the sum of the keys that the sequences read.
        """
        fixed = self._fixed.get((sequences, clock_mhz)) or self._work_out(sequences, clock_mhz)
        decoding, (slower, starved, awake_w, switching), shared, busy_s, *_ = fixed
        keys = decoding.layers * context_tokens
        if decoding.window_layers:
            keys += decoding.window_layers * min(context_tokens, decoding.window_tokens)
        read = keys * decoding.key_bytes + decoding.state_bytes
        compute_s = decoding.pair_flop * keys / decoding.shards / decoding.flop_s
        attention_s = roofline_s(compute_s * slower, read / decoding.bytes_s * starved, shared)
        rest = decoding.rest
        busy_s = busy_s + attention_s + rest.kernel_s
        host_s = rest.host_s
        duration_s = busy_s + host_s - rest.host_overlap * min(busy_s, host_s)
        stalled_w = fixed.stall_w * (fixed.streaming_s + attention_s)
        active_w = fixed.compute_w * (slower * (fixed.compute_s + compute_s))
        core_w = switching * (stalled_w + active_w) / duration_s
        memory_w = fixed.memory_j_per_byte * (rest.memory_bytes + read) / duration_s
        return StepCost(duration_s, awake_w + core_w + memory_w, clock_mhz)

    def at_clocks(
        self, sequences: int, context_tokens: FloatArray, clock_mhz: float
    ) -> StretchCost:
        """Return the same of many steps; shape of `context_tokens` (steps,)."""
        fixed = self._fixed.get((sequences, clock_mhz)) or self._work_out(sequences, clock_mhz)
        decoding, (slower, starved, awake_w, switching), shared, busy_s, *_ = fixed
        keys = decoding.layers * context_tokens
        if decoding.window_layers:
            windows = np.minimum(context_tokens, decoding.window_tokens)
            keys = keys + decoding.window_layers * windows
        read = keys * decoding.key_bytes + decoding.state_bytes
        compute_s = decoding.pair_flop * keys / decoding.shards / decoding.flop_s
        computing_s, reading_s = compute_s * slower, read / decoding.bytes_s * starved
        attention_s = np.maximum(computing_s, reading_s)
        attention_s += shared * np.minimum(computing_s, reading_s)
        rest = decoding.rest
        busies_s = busy_s + attention_s + rest.kernel_s
        host_s = rest.host_s
        durations_s = busies_s + host_s - rest.host_overlap * np.minimum(busies_s, host_s)
        stalled_w = fixed.stall_w * (fixed.streaming_s + attention_s)
        active_w = fixed.compute_w * (slower * (fixed.compute_s + compute_s))
        cores_w = switching * (stalled_w + active_w) / durations_s
        memories_w = fixed.memory_j_per_byte * (rest.memory_bytes + read) / durations_s
        return StretchCost(durations_s, awake_w + cores_w + memories_w, clock_mhz)

    def step(self, sequences: int, context_tokens: int, near_mhz: float | None) -> StepCost:
        """Return the cost under the limit and the locked clock; sooner if it is near `near_mhz`."""
        if near_mhz is None or near_mhz == self._high_mhz:
            cost = self.at_clock(sequences, context_tokens, self._high_mhz)
            if cost.power_w <= self._allowed_w:
                return cost
        elif self._low_mhz < near_mhz < self._high_mhz:  # most often it is the same as before
            cost = self.at_clock(sequences, context_tokens, near_mhz)
            if cost.power_w <= self._allowed_w:
                above_mhz = near_mhz + CLOCK_STEP_MHZ
                if self.at_clock(sequences, context_tokens, above_mhz).power_w > self._allowed_w:
                    return cost
        return self._power.governed(
            lambda clock_mhz: self.at_clock(sequences, context_tokens, clock_mhz), near_mhz
        )

    def stretch(
        self, sequences: int, context_tokens: FloatArray, near_mhz: float | None
    ) -> StretchCost | None:
        """Return the costs of many steps, as `step` does one by one, if all run at one clock.

        Tried are the highest clock, and `near_mhz`.
        """
        high_mhz, allowed_w = self._high_mhz, self._allowed_w
        if near_mhz is None or near_mhz == high_mhz:
            cost = self.at_clocks(sequences, context_tokens, high_mhz)
            return cost if float(cost.powers_w.max()) <= allowed_w else None
        if not self._low_mhz < near_mhz < high_mhz:
            return None
        cost = self.at_clocks(sequences, context_tokens, near_mhz)
        if float(cost.powers_w.max()) > allowed_w:
            return None
        above = self.at_clocks(sequences, context_tokens, near_mhz + CLOCK_STEP_MHZ)
        return cost if float(above.powers_w.min()) > allowed_w else None

    def _work_out(self, sequences: int, clock_mhz: float) -> _Fixed:
        decoding, clock = self._steps.decoding(sequences), self._power.at(clock_mhz)
        gpu, rest = self._power.gpu, decoding.rest
        shared = 1.0 - gpu.roofline_overlap
        linear_s, expert_s = (
            roofline_s(compute_s * clock.slower, memory_s * clock.starved, shared)
            for compute_s, memory_s in (
                (rest.linear_compute_s, rest.linear_memory_s),
                (rest.expert_compute_s, rest.expert_memory_s),
            )
        )
        fixed = self._fixed[sequences, clock_mhz] = _Fixed(
            decoding,
            clock,
            shared,
            busy_s=linear_s + expert_s,
            streaming_s=linear_s + expert_s * rest.expert_balance,
            compute_s=rest.matrix_s,
            memory_j_per_byte=gpu.memory_pj_per_byte * 1e-12,
            stall_w=gpu.stall_w,
            compute_w=gpu.compute_w,
        )
        return fixed


class DecodeStretch:
    """Steps ahead of one engine, as long as nothing happens to it.

    Attributes:
        nominal_s: modelled duration of each step.
        ends_s: when each ends, with its jitter.
        energies_j: energy used by the end of each.
        powers_w: of all GPUs.
        columns: the ends and the energies again, each of shape (steps,).
        clock_mhz: of all steps.
        count: how many there are.
        made: how many have been made.
        noted: how many of those the engine has taken note of.
    """

    __slots__ = (
        "clock_mhz",
        "columns",
        "count",
        "ends_s",
        "energies_j",
        "made",
        "nominal_s",
        "noted",
        "powers_w",
    )

    def __init__(
        self,
        cost: StretchCost,
        gpus: int,
        factors: FloatArray | None,
        clock_s: float,
        energy_j: float,
    ) -> None:
        nominal_s, powers_w = cost.durations_s, cost.powers_w * gpus
        durations_s = nominal_s if factors is None else nominal_s * factors
        ends_s = _running_total(clock_s, durations_s)
        energies_j = _running_total(energy_j, powers_w * durations_s)
        self.columns = ends_s, energies_j
        self.nominal_s: list[float] = nominal_s.tolist()
        self.ends_s: list[float] = ends_s.tolist()
        self.energies_j: list[float] = energies_j.tolist()
        self.powers_w = powers_w
        self.clock_mhz = cost.clock_mhz
        self.count = len(self.ends_s)
        self.made = 0
        self.noted = 0


def _running_total(start: float, values: FloatArray) -> FloatArray:
    """Add up one by one, as steps do; shape as `values`."""
    total = values.copy()
    total[0] += start
    return total.cumsum()


class Jitter:
    """How much longer or shorter than modelled each step takes: log-normal, a stream per engine.

    The factors are the same whether they are taken one by one, many at once, or looked at ahead.
    """

    def __init__(self, deviation: float, seed: int) -> None:
        self._deviation = deviation
        self._random = np.random.default_rng(seed)
        self._drawn = np.empty(0)  # standard normal
        self._singly: list[float] = []  # their factors; numpy's may differ in the last digit
        self._next = 0

    def factor(self) -> float:
        """Return the next one."""
        if self._next == len(self._singly):
            self._draw(1)
        self._next += 1
        return self._singly[self._next - 1]

    def factors(self, count: int) -> FloatArray:
        """Return the next `count`, shape (count,)."""
        if self._next + count > self._drawn.size:
            self._draw(count)
        drawn = self._drawn[self._next : self._next + count]
        self._next += count
        factors: FloatArray = np.exp(self._deviation * drawn)
        return factors

    def ahead(self, count: int) -> FloatArray:
        """Return what `factor` will, the next `count` times; shape (count,)."""
        if self._next + count > self._drawn.size:
            self._draw(count)
        return np.array(self._singly[self._next : self._next + count])

    def skip(self, count: int) -> None:
        """Take the next `count`, which were looked at ahead."""
        self._next += count

    def _draw(self, count: int) -> None:
        """Have at least `count` ahead."""
        more = self._random.standard_normal(max(count, _DRAWN_AT_ONCE))
        self._drawn = np.concatenate([self._drawn[self._next :], more])
        self._singly = self._singly[self._next :]
        self._singly += map(math.exp, (self._deviation * more).tolist())
        self._next = 0


def between(
    first: StepCost, last: StepCost, count: int, gpus: int, factors: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Return durations, s, and energies, J, of steps from `first` to `last`; both (count,).

    At one clock both are linear in the contexts, which grow by as much at each step. `factors` are
    those of the jitter, shape (count,).
    """
    step_j = [gpus * cost.power_w * cost.duration_s for cost in (first, last)]
    durations_s = evenly_spaced(first.duration_s, last.duration_s, count)
    energies_j = evenly_spaced(step_j[0], step_j[1], count)
    if factors is not None:
        durations_s *= factors
        energies_j *= factors
    return durations_s, energies_j


def evenly_spaced(first: float, last: float, count: int) -> FloatArray:
    """Return `count` numbers, at least 2: `np.linspace`, for a tenth of its time."""
    values = STEPS[:count] * ((last - first) / (count - 1)) + first
    values[-1] = last
    return values
