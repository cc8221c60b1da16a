"""The longest requests of a workload, for a stress test."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import count, islice

import numpy as np

from tuner.load.workload import FIRST_TOKEN_ID, Workload
from tuner.records import Request

_SAMPLE = 1024  # requests that are looked at
_KEPT = 16  # the longest of them


def longest_requests(workload: Workload) -> Iterator[Request]:
    """Yield without end the requests with the most tokens, prompt and answer, all at once.

    They are the longest 16 of 1,024 that the workload sends. Each time round the prompts have other
    token ids, so that a prefix cache holds none of them.
    """
    sample = islice(workload.requests(), _SAMPLE)
    longest = sorted(sample, key=lambda r: -(r.prompt_token_ids.size + r.output_tokens))[:_KEPT]
    span = workload.spec.vocab_size - FIRST_TOKEN_ID
    for number in count():
        request = longest[number % len(longest)]
        moved = request.prompt_token_ids - FIRST_TOKEN_ID + 1 + number // len(longest)
        yield dataclasses.replace(
            request,
            request_id=number,
            arrival_s=0.0,
            prompt_token_ids=(moved % span + FIRST_TOKEN_ID).astype(np.int32),
        )
