"""What a confirmed image server is asked: its pictures, beside the baseline's of the same seeds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import pytest
from helpers.omni_standin import png

from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluation, MeasurementPlan
from tuner.evaluation.factory import measurement_plan
from tuner.evaluation.launched.answers import AnswerChecks
from tuner.load.workload import load_workload
from tuner.records import GenerationRequest, Measurement, Source, Timing
from tuner.servers.launch import RunningServer
from tuner.servers.server import NotAnsweredError
from tuner.spec.study import StudySpec

pytest.importorskip("skimage")


@dataclass
class Maker:
    """A server of images that makes them `changed` darker; None makes none."""

    changed: int | None = 0
    base_url: str = "http://nowhere"
    served_name: str = "m"
    asked: int = 0

    @property
    def api(self) -> Maker:
        return self

    async def picture(
        self, session: object, base_url: str, served_name: str, request: GenerationRequest
    ) -> bytes:
        if self.changed is None:
            raise NotAnsweredError("HTTP 500: out of memory")
        self.asked += 1
        return png(request.width // 8, request.height // 8, request.seed, self.changed)


def plan() -> MeasurementPlan:
    spec = StudySpec.model_validate({"model": "m", "workload": "image", "trials": 3})
    return measurement_plan(spec, load_workload("image"), Configuration())


def evaluation() -> Evaluation:
    result = Measurement({"energy_per_image_j": 1.0}, 0.0, 1.0, Source.MEASURED, Source.MEASURED)
    return Evaluation(result, None, (), Timing(1.0))


def checks(baseline: Maker) -> AnswerChecks:
    async def launched() -> RunningServer:
        return cast(RunningServer, baseline)

    return AnswerChecks(plan(), launched)


def asked(ours: AnswerChecks, maker: Maker, **flags: Any) -> Evaluation:
    server = cast(RunningServer, maker)
    return asyncio.run(ours.asked(evaluation(), Configuration(flags), server))


def test_pictures_are_compared_with_those_of_the_baseline_which_makes_them_once() -> None:
    baseline = Maker()
    ours = checks(baseline)
    same, darker = asked(ours, Maker()), asked(ours, Maker(40), cache_backend="cache_dit")
    assert same.pictures is not None
    assert darker.pictures is not None
    assert len(same.pictures) == baseline.asked == 4
    assert all(one.ssim == 1.0 for one in same.pictures)
    assert all(one.ssim < 0.9 for one in darker.pictures)
    assert len({one.seed for one in same.pictures}) == 4


def test_a_configuration_is_asked_once() -> None:
    ours, maker = checks(Maker()), Maker()
    assert asked(ours, maker).pictures is not None
    assert asked(ours, maker).pictures is None
    assert maker.asked == 4


def test_what_makes_no_picture_gets_a_warning() -> None:
    found = asked(checks(Maker()), Maker(None))
    assert found.pictures is None
    assert found.warnings == ("the pictures could not be compared: HTTP 500: out of memory",)
    assert asked(checks(Maker(None)), Maker()).pictures is None
