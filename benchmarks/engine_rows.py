"""A measured row on the emulator's own engine, request by request."""

from __future__ import annotations

import numpy as np
from measured_rows import BUDGET_TOKENS, Lengths, Row, prompt_tokens, steps_of
from numpy.typing import NDArray

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.emulator.engine.engine import Engine
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.launch_rules import resolve
from tuner.emulator.refusal import LaunchRefusedError

_MEMORY_SHARE = 0.9  # vLLM 0.11's default
FIGURES = ("token_j", "power_w", "throughput_tok_s", "itl_ms", "p99_itl_ms")

Array = NDArray[np.float64]


def run_row(row: Row, lengths: Lengths, model: ModelShape, gpu: Gpu) -> Array | None:
    """Return the row's figures in the order of FIGURES, or None where the engine refuses it.

    Energy and tokens count from when `max_num_seqs` requests have a token until all have one.
    """
    flags = {
        "max_num_seqs": row.max_num_seqs,
        "max_num_batched_tokens": BUDGET_TOKENS,
        "max_model_len": row.max_model_len,
        "tensor_parallel_size": row.gpus,
        "gpu_memory_utilization": _MEMORY_SHARE,
        "async_scheduling": True,  # as the benchmark's configurations say
    }
    try:
        launch = resolve(model, gpu, flags)
    except LaunchRefusedError:
        return None
    engine = Engine(launch, steps_of(row, model, gpu), PowerModel.under(gpu, {}))
    random = np.random.default_rng(row.requests + row.max_num_seqs)
    outputs, prompts = lengths.sample(row, random), prompt_tokens(row, random)
    sequences = [
        Sequence(i, int(prompt), int(output))
        for i, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))
    ]
    for sequence in sequences:
        engine.submit(sequence)
    while engine.running or engine.waiting:
        engine.advance(float("inf"))
    return _figures(engine, sequences, row)


def _figures(engine: Engine, sequences: list[Sequence], row: Row) -> Array:
    log = engine.log
    assert log is not None
    ends_s = np.concatenate([[0.0], log.ends_s])
    energy_j = np.concatenate([[0.0], log.energies_j])
    made = np.zeros(len(ends_s) + 1)  # tokens of each step, as differences
    later = np.zeros(len(ends_s) + 1)  # those that are not a request's first
    for sequence in sequences:
        for first, tokens in sequence.segments:
            made[first + 1] += 1
            made[first + 1 + tokens] -= 1
            later[first + 2] += 1
            later[first + 1 + tokens] -= 1
    tokens, gaps = np.cumsum(made)[:-1], np.cumsum(later)[:-1]
    firsts = np.sort([sequence.segments[0][0] + 1 for sequence in sequences])
    begin, end = firsts[min(row.max_num_seqs, len(firsts)) - 1], firsts[-1]
    time_s = ends_s[end] - ends_s[begin]
    used_j = energy_j[end] - energy_j[begin]
    count = tokens[begin + 1 : end + 1].sum()
    order = np.argsort(np.diff(ends_s))
    shares = np.cumsum(gaps[1:][order])
    places = np.searchsorted(shares, shares[-1] * np.array([0.5, 0.99]))
    itl_s, tail_s = np.diff(ends_s)[order][places]
    return np.array([used_j / count, used_j / time_s, count / time_s, 1e3 * itl_s, 1e3 * tail_s])
