"""Output agreement: whether greedy answers to fixed prompts stay the same.

A saving must not change the model's answers. Greedy answers can differ even on one server, because
the batch composition changes the last digits. So the reference is how well the default
configuration agrees with itself over several launches.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from tuner.servers.server import Endpoint, NotAnsweredError, TokenIds

PROBES = 64
PROBE_TOKENS = 32
_PROMPT_TOKENS = (16, 64)
_TOKEN_IDS = (10, 500)  # in every vocabulary, above the special tokens of most
_AT_ONCE = 16
_ANSWER_S = 120.0
_DEVIATIONS = 2.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far answers to the same prompts are the same, as shares of `compared` pairs.

    `identical` is the share of pairs with the same tokens throughout, `common_prefix` the mean
    share of the longer answer that comes before the first difference.
    """

    identical: float
    common_prefix: float
    compared: int


def probe_prompts() -> tuple[TokenIds, ...]:
    """Return the prompts: the same in every version of the tuner, on every machine."""
    chance = np.random.default_rng(20_260_101)
    lengths = chance.integers(*_PROMPT_TOKENS, size=PROBES)
    return tuple(tuple(chance.integers(*_TOKEN_IDS, size=n).tolist()) for n in lengths)


async def probe_answers(server: Endpoint) -> tuple[TokenIds, ...]:
    """Return the greedy answer to each prompt, some asked at once as under load.

    Raises `NotAnsweredError`.
    """
    # here, because reports only compare answers, and should not wait for an HTTP client's import
    import aiohttp

    turn = asyncio.Semaphore(_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def ask(prompt: TokenIds) -> TokenIds:
            async with turn:
                try:
                    return await server.api.greedy_answer(
                        session, server.base_url, server.served_name, prompt, PROBE_TOKENS
                    )
                except TimeoutError:
                    raise NotAnsweredError(f"no answer within {_ANSWER_S:g} s") from None

        tasks = [asyncio.create_task(ask(prompt)) for prompt in probe_prompts()]
        try:
            return tuple(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def agreement(pairs: Sequence[tuple[Sequence[TokenIds], Sequence[TokenIds]]]) -> Agreement | None:
    """Return the agreement over pairs of answer sets to the same prompts; None without any."""
    both = [(a, b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)]
    if not both:
        return None
    return Agreement(
        identical=sum(a == b for a, b in both) / len(both),
        common_prefix=sum(_common_share(a, b) for a, b in both) / len(both),
        compared=len(both),
    )


def clearly_below(ours: Agreement, reference: Agreement) -> bool:
    """Say whether the share of identical answers is below the reference by more than chance.

    The prompts are the sample: answers of several launches to one prompt are no new ones.
    """
    shares = (ours.identical, reference.identical)
    variance = sum(p * (1.0 - p) for p in shares) / PROBES
    return reference.identical - ours.identical > _DEVIATIONS * math.sqrt(variance)


def _common_share(a: TokenIds, b: TokenIds) -> float:
    longer = max(len(a), len(b))
    if longer == 0:
        return 1.0
    same = takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    return sum(1 for _ in same) / longer
