"""Thinking: what is sent with a chat, and how much longer answers become."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from tuner.errors import UsageError
from tuner.load.thinking import Thinking
from tuner.load.workload import Workload, WorkloadSpec, load_workload
from tuner.metrics import Output
from tuner.records import Message, TextRequest
from tuner.servers.vllm.api import VllmApi

DRAWN = {
    "description": "for a test",
    "prompt_tokens": {"distribution": "uniform", "min": 4, "max": 6},
    "output_tokens": {"distribution": "uniform", "min": 10, "max": 30},
    "load": {"concurrency": 2},
}


def drawn(**thinking: object) -> Workload:
    more = {"thinking": thinking} if thinking else {}
    return Workload("drawn", WorkloadSpec.model_validate(DRAWN | more))


def test_answers_are_so_many_times_as_long() -> None:
    plain, longer = drawn(), drawn(effort="high", token_multiplier=12.5)
    pairs = zip(islice(plain.requests(), 50), islice(longer.requests(), 50), strict=True)
    assert all(b.output_tokens == round(12.5 * a.output_tokens) for a, b in pairs)
    assert longer.sha256 != plain.sha256
    assert longer.max_request_tokens >= max(r.output_tokens for r in islice(longer.requests(), 50))


@pytest.mark.parametrize(
    ("thinking", "sent"),
    [
        ({"enabled": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"effort": "low"}, {"reasoning_effort": "low"}),
        ({"budget_tokens": 512}, {"thinking_token_budget": 512}),
        ({"token_multiplier": 2.0}, {}),
    ],
)
def test_a_chat_says_how_to_think(
    tmp_path: Path, thinking: dict[str, object], sent: dict[str, object]
) -> None:
    row = {"messages": [{"role": "user", "content": "2+2?"}], "output_tokens": 8}
    (tmp_path / "chats.jsonl").write_text(json.dumps(row))
    fields = {
        "description": "for a test",
        "trace": {"file": "chats.jsonl"},
        "stop": "natural",
        "thinking": thinking,
        "load": {"concurrency": 1},
    }
    (tmp_path / "chats.yaml").write_text(yaml.safe_dump(fields))
    request = next(load_workload(str(tmp_path / "chats.yaml")).requests())
    body = json.loads(VllmApi().completion(request, "m").body)
    names = ("chat_template_kwargs", "reasoning_effort", "thinking_token_budget")
    assert {name: body[name] for name in names if name in body} == sent
    assert request.stops


def test_images_do_not_think(tmp_path: Path) -> None:
    text = Path("workloads/image.yaml").read_text() + "thinking: {enabled: true}\n"
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match="generation has no thinking"):
        load_workload(str(tmp_path / "mine.yaml"))


LEVELS = {"off": {"enabled": False}, "high": {"effort": "high", "token_multiplier": 4}}


def test_a_level_takes_the_place_of_the_workloads_own_thinking() -> None:
    spec = DRAWN | {"thinking": LEVELS["off"], "thinking_levels": LEVELS}
    workload = Workload("drawn", WorkloadSpec.model_validate(spec))
    assert workload.spec.default_level == "off"
    plain, high = (next(workload.requests(level)) for level in (None, "high"))
    assert high.output_tokens == 4 * plain.output_tokens
    assert high.chat_fields == {"reasoning_effort": "high"}
    assert plain.output is high.output is Output.ANSWER
    assert workload.max_request_tokens >= 4 * 30
    with pytest.raises(UsageError, match="no level of thinking 'low'; it has: off, high"):
        next(workload.requests("low"))


def test_yaml_reads_off_as_false() -> None:
    written = yaml.safe_load(yaml.safe_dump(DRAWN) + "thinking_levels: {off: {}, on: {}}")
    assert set(WorkloadSpec.model_validate(written).thinking_levels or {}) == {"off", "on"}
    with pytest.raises(ValidationError, match="at least two levels"):
        WorkloadSpec.model_validate(DRAWN | {"thinking_levels": {"off": {}}})


def test_a_system_message_stands_in_front() -> None:
    thinking = Thinking(system="Think step by step.")
    asked = TextRequest(0, 0.0, np.zeros(5, np.int32), 8, (Message("user", "2+2?"),))
    request = thinking.applied_to(asked)
    assert isinstance(request, TextRequest)
    assert [m.role for m in request.prompt if isinstance(m, Message)] == ["system", "user"]
    assert request.prompt_token_ids.size > 5
