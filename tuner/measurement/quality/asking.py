"""Asking a server questions, greedily and some at once, and grading what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tuner.load.thinking import Thinking
from tuner.measurement.quality.likeness import Picture
from tuner.measurement.quality.questions import Question
from tuner.records import GenerationRequest
from tuner.servers.server import Endpoint, NotAnsweredError

_AT_ONCE = 16
_ANSWER_S = 600.0
_PICTURE_S = 7200.0  # a video may take an hour


async def made_pictures(
    server: Endpoint, requests: Sequence[GenerationRequest]
) -> tuple[Picture, ...]:
    """Have the server make the image or video of each request, one after another.

    One at a time, so that the batch is the same for every configuration. Raises
    `NotAnsweredError`.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_PICTURE_S)
    found = []
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for request in requests:
            try:
                content = await server.api.picture(
                    session, server.base_url, server.served_name, request
                )
            except TimeoutError:
                raise NotAnsweredError(f"no picture within {_PICTURE_S:g} s") from None
            found.append(Picture(request.prompt, request.seed, content))
    return tuple(found)


async def graded_answers(
    server: Endpoint, questions: Sequence[Question], thinking: Thinking | None = None
) -> tuple[bool, ...]:
    """Return of each question whether the server's greedy answer is right.

    Chats are asked to think as the configuration's do, and may be as much longer. Raises
    `NotAnsweredError` if one got no answer.
    """
    # here, because reports read grades, and should not wait for an HTTP client's import
    import aiohttp

    how = Thinking() if thinking is None else thinking
    turn = asyncio.Semaphore(_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        asyncio.TaskGroup() as group,
    ):

        async def grade(question: Question) -> bool:
            async with turn:
                try:
                    said = await server.api.greedy_text(
                        session,
                        server.base_url,
                        server.served_name,
                        how.asked(question.asked),
                        how.longer(question.max_tokens),
                        how.chat_fields,
                    )
                except TimeoutError:
                    raise NotAnsweredError(f"no answer within {_ANSWER_S:g} s") from None
            return question.is_right(said)

        tasks = [group.create_task(grade(question)) for question in questions]
    return tuple(task.result() for task in tasks)
