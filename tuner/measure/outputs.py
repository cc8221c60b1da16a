"""Does the server still say the same? Greedy answers to fixed prompts, and their agreement.

A saving that changes what the model says is no saving. Greedy answers are not always the same even
on one server: which requests share a batch changes the last digits. So the reference is how well
the default configuration agrees with itself over several launches.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import aiohttp

PROBES = 64
PROBE_TOKENS = 32
_PROMPT_TOKENS = (16, 64)
_TOKEN_IDS = (10, 500)  # in every vocabulary, above the special tokens of most
_AT_ONCE = 16
_ANSWER_S = 120.0
_DEVIATIONS = 2.0

TokenIds = tuple[int, ...]


class NotAnsweredError(Exception):
    """A probe prompt got no answer that can be compared; the text says why."""


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


async def probe_answers(base_url: str, served_name: str) -> tuple[TokenIds, ...]:
    """Return the greedy answer to each prompt, some asked at once as under load.

    Raises `NotAnsweredError`.
    """
    # here, because reports only compare answers, and should not wait for an HTTP client's import
    import aiohttp

    from tuner.load.client.client import completions_url

    turn = asyncio.Semaphore(_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def ask(prompt: TokenIds) -> TokenIds:
            async with turn:
                return await _answer(session, completions_url(base_url), served_name, prompt)

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


async def _answer(
    session: aiohttp.ClientSession, url: str, served_name: str, prompt: TokenIds
) -> TokenIds:
    import aiohttp

    body = {
        "model": served_name,
        "prompt": list(prompt),
        "max_tokens": PROBE_TOKENS,
        "temperature": 0,
        "detokenize": False,
        "return_token_ids": True,
    }
    try:
        async with session.post(url, json=body) as reply:
            if reply.status != 200:
                raise NotAnsweredError(f"HTTP {reply.status}: {(await reply.text())[:200].strip()}")
            token_ids = (await reply.json())["choices"][0]["token_ids"]
    except TimeoutError:
        raise NotAnsweredError(f"no answer within {_ANSWER_S:g} s") from None
    except (aiohttp.ClientError, ValueError, LookupError, TypeError) as error:
        raise NotAnsweredError(f"no answer with token ids ({type(error).__name__})") from error
    if not isinstance(token_ids, list):
        raise NotAnsweredError("the server does not return token ids")
    return tuple(int(token) for token in token_ids)


def _common_share(a: TokenIds, b: TokenIds) -> float:
    longer = max(len(a), len(b))
    if longer == 0:
        return 1.0
    same = takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    return sum(1 for _ in same) / longer
