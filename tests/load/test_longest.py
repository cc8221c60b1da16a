"""The stress test sends the longest requests, and never the same prompt twice."""

from __future__ import annotations

from itertools import islice

import pytest

from tuner.load.longest import longest_requests
from tuner.load.workload import load_workload


@pytest.mark.parametrize("name", ["chat", "code", "reasoning"])
def test_they_are_the_longest_and_all_different(name: str) -> None:
    workload = load_workload(name)
    usual = sorted(
        r.prompt_token_ids.size + r.output_tokens for r in islice(workload.requests(), 1024)
    )
    sent = list(islice(longest_requests(workload), 200))
    assert {r.request_id for r in sent} == set(range(200))
    assert min(r.prompt_token_ids.size + r.output_tokens for r in sent) >= usual[-16]
    assert len({r.prompt_token_ids.tobytes() for r in sent}) == 200
    for request in sent:
        assert request.prompt_token_ids.min() >= 256
        assert request.prompt_token_ids.max() < workload.spec.vocab_size
