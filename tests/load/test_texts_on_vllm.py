"""Texts and chats on a real vLLM."""

from __future__ import annotations

from pathlib import Path

from helpers.driving import drive_records
from helpers.endpoints import served
from helpers.tiny_vllm import Endless, needs_vllm, tiny_vllm

from tuner.load.text_request import stand_in_ids
from tuner.records import Load, Message, RequestRecord, RequestState, TextRequest

pytestmark = needs_vllm(900)


async def test_texts_and_chats_are_answered_and_counted(tmp_path: Path) -> None:
    chat = (Message("system", "Be brief."), Message("user", "Grüße 🙂"))
    asked: list[TextRequest] = [
        TextRequest(0, 0.0, stand_in_ids(5), 7, "Once upon a time"),
        TextRequest(1, 0.0, stand_in_ids(5), 9, chat),
    ]
    load = Load(concurrency=2)
    async with tiny_vllm(tmp_path) as server:
        records: tuple[RequestRecord, ...] = await drive_records(
            served(server.base_url, server.served_name), iter(asked), load, Endless()
        )
    assert [(r.state, r.error) for r in records] == [(RequestState.DONE, None)] * 2
    assert [r.token_times_s.size for r in records] == [7, 9]
    rendered = "".join(f"{m.role}: {m.content}" for m in chat)
    markers = 2 * len(chat) + 1  # one token each
    assert [r.prompt_tokens for r in records] == [
        len("Once upon a time"),
        len(rendered.encode()) + markers,
    ]
