"""What a confirmed configuration says: probe answers, questions, pictures beside the baseline's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluation, MeasurementPlan
from tuner.measurement.outputs import probe_answers
from tuner.measurement.quality.asking import graded_answers, made_pictures
from tuner.measurement.quality.likeness import NotComparedError, Picture, picture_changes
from tuner.servers.launch import RunningServer
from tuner.servers.server import NotAnsweredError


class AnswerChecks:
    """Asks servers what the plan wants to know of their answers, each configuration once.

    `baseline` launches the baseline: its pictures are made again where no run has them yet.
    """

    def __init__(
        self, plan: MeasurementPlan, baseline: Callable[[], Awaitable[RunningServer]]
    ) -> None:
        self._plan = plan
        self._baseline = baseline
        self._reference: tuple[Picture, ...] | None = None
        self._graded: list[Configuration] = []  # were asked in this run

    async def asked(
        self, found: Evaluation, configuration: Configuration, server: RunningServer
    ) -> Evaluation:
        """Return the evaluation with what the server answered; a warning where it did not."""
        if self._plan.pictures:
            return await self._with_pictures(found, configuration, server)
        try:
            answers = await probe_answers(server)
        except NotAnsweredError as error:
            return _warned(found, f"the outputs could not be compared: {error}")
        return await self._with_grades(replace(found, answers=answers), configuration, server)

    async def remember_baseline(self, server: RunningServer) -> None:
        """Have a server of the baseline make the pictures that others are compared with."""
        if self._plan.pictures and self._reference is None:
            self._reference = await made_pictures(server, self._plan.pictures)

    async def _with_grades(
        self, found: Evaluation, configuration: Configuration, server: RunningServer
    ) -> Evaluation:
        """Ask the questions of the study's quality file, once of each configuration."""
        questions = self._plan.questions
        if not questions or configuration in self._graded:
            return found
        thinking = self._plan.workload.spec.thinking_at(configuration.thinking)
        try:
            grades = await graded_answers(server, questions, thinking)
        except* NotAnsweredError as group:
            found = _warned(found, f"the questions were not answered: {group.exceptions[0]}")
        else:
            self._graded.append(configuration)
            found = replace(found, grades=grades)
        return found

    async def _with_pictures(
        self, found: Evaluation, configuration: Configuration, server: RunningServer
    ) -> Evaluation:
        """Make the pictures, once of each configuration, and compare them with the baseline's."""
        if configuration in self._graded:
            return found
        try:
            steps = configuration.steps
            asked = self._plan.pictures
            if steps is not None:
                asked = tuple(replace(request, steps=steps) for request in asked)
            ours = await made_pictures(server, asked)
            if self._reference is None:
                await self.remember_baseline(await self._baseline())
            assert self._reference is not None
            pictures = await asyncio.to_thread(picture_changes, ours, self._reference)
        except (NotAnsweredError, NotComparedError) as error:
            return _warned(found, f"the pictures could not be compared: {error}")
        self._graded.append(configuration)
        return replace(found, pictures=pictures)


def _warned(found: Evaluation, warning: str) -> Evaluation:
    return replace(found, warnings=(*found.warnings, warning))
