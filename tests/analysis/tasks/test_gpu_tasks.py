"""The tasks of one GPU: each figure by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from helpers.records import IDENTITY, OWNER
from rich.console import Console

from tuner.analysis.tasks.gpu_tasks import gpu_tasks
from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.load.workload import load_workload
from tuner.records import Measurement, Source
from tuner.report.terminal.task_table import gpu_tasks_json, show_gpu_tasks
from tuner.store import Store, StudyIdentity

CHAT = replace(IDENTITY, name="chat-night", slos=(), spec_json={"concurrency": 64})
IMAGE = replace(
    CHAT,
    name="image-night",
    model="stabilityai/stable-diffusion-3.5-large",
    workload_name="image",
    workload_sha256=load_workload("image").sha256,
    objectives=("energy_per_image_j", "p99_image_latency_ms"),
    spec_json={"workload": "image", "output": "image"},
)
VIDEO = replace(
    IMAGE,
    name="video-night",
    workload_name="video",
    workload_sha256="0" * 64,  # another version of the workload
    objectives=("energy_per_video_s_j", "p99_video_latency_ms"),
    spec_json={"workload": "video", "output": "video"},
)


def add(store: Store, study: StudyIdentity, *trials: dict[str, float]) -> None:
    store.create_study(study)
    for number, metrics in enumerate(trials):
        configuration = Configuration(flags={} if number == 0 else {"max_num_seqs": 8})
        store.begin_trial(study.name, number, configuration, baseline=number == 0, owner=OWNER)
        found = Measurement(metrics, 10.0, 70.0, study.latency_source, study.energy_source)
        store.save_measurement(study.name, number, found, None)


@pytest.fixture
def three(empty: Store) -> Store:
    chat = [
        {"energy_per_output_token_j": j, "energy_per_request_j": 400.0 * j, "p99_tpot_ms": 30.0}
        for j in (0.25, 0.2)
    ]
    image = [
        {"energy_per_image_j": j, "energy_per_request_j": j, "p99_image_latency_ms": 9000.0}
        for j in (5000.0, 4000.0)
    ]
    video = [
        {"energy_per_video_s_j": j, "energy_per_request_j": 5.4 * j, "p99_video_latency_ms": 1e5}
        for j in (12000.0, 9000.0)
    ]
    add(empty, VIDEO, *video)
    add(empty, IMAGE, *image)
    add(empty, CHAT, *chat)
    return empty


def test_every_figure_by_hand(three: Store) -> None:
    found = gpu_tasks(three, "h100")
    chat, image, video = found.tasks
    assert [t.task for t in found.tasks] == ["chat", "image", "video"]
    assert (chat.amount, chat.energy_multiplier) == (pytest.approx(400.0), 1.0)
    assert chat.recommended_j == pytest.approx(80.0)
    assert (image.amount, image.steps) == (1.0, 28)
    assert image.energy_multiplier == pytest.approx(4000.0 / 80.0)
    assert image.step_multiplier == pytest.approx(28 / 400)
    assert image.saving_percent == pytest.approx(20.0)
    assert video.amount == pytest.approx(5.4)
    assert video.energy_multiplier == pytest.approx(5.4 * 9000.0 / 80.0)
    assert video.steps is None  # the workload has changed since


def test_measured_studies_go_before_emulated_ones(three: Store) -> None:
    emulated = {"energy_source": Source.EMULATED, "latency_source": Source.EMULATED}
    metrics = {"energy_per_image_j": 1.0, "energy_per_request_j": 1.0, "p99_image_latency_ms": 1.0}
    add(three, replace(IMAGE, name="dreamt", **emulated), metrics)
    image = gpu_tasks(three, "H100").tasks[1]
    assert (image.study, image.emulated) == ("image-night", ())


def test_the_table_says_what_each_request_gets(three: Store) -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    show_gpu_tasks(console, gpu_tasks(three, "H100"))
    text = console.file.getvalue()
    assert "400 tok" in text and "1 image" in text and "5.4 s" in text
    assert "measured" in text and "emulated" not in text
    data = json.loads(json.dumps(gpu_tasks_json(gpu_tasks(three, "H100"))))
    assert [t["output"] for t in data["tasks"]] == ["text", "image", "video"]


def test_a_gpu_that_no_study_has_is_said(three: Store) -> None:
    with pytest.raises(UsageError, match="is no GPU of a study here; the store holds: NVIDIA H100"):
        gpu_tasks(three, "MI300X")
