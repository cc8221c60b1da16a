"""Answers of vLLM-Omni: whole, of the size and the frames that were asked for, or a failure."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.omni_standin import fields_of, mp4, png
from hypothesis import given
from hypothesis import strategies as st

from tuner.configuration import Configuration
from tuner.metrics import Output
from tuner.records import GenerationRequest
from tuner.servers.vllm_omni.answer import GenerationAnswer
from tuner.servers.vllm_omni.api import OmniApi
from tuner.servers.vllm_omni.flags import OmniFlags
from tuner.servers.vllm_omni.server import OmniServer

IMAGE = GenerationRequest(
    7, 0.0, np.zeros(3, np.int32), 1, "a boat", height=64, width=96, steps=4, seed=5, guidance=4.5
)
VIDEO = replace(IMAGE, frames=9, fps=8.0)


def answered(request: GenerationRequest, body: bytes, cut: int | None = None) -> GenerationAnswer:
    answer = GenerationAnswer(request)
    answer.feed(body[:cut], 1.0)
    answer.feed(b"" if cut is None else body[cut:], 2.0)
    answer.close(3.0)
    return answer


def in_json(content: bytes) -> bytes:
    return json.dumps({"data": [{"b64_json": base64.b64encode(content).decode()}]}).encode()


@given(st.integers(0, 400))
def test_an_image_counts_when_its_last_byte_came(cut: int) -> None:
    answer = answered(IMAGE, in_json(png(96, 64, 5)), cut)
    assert answer.problem is None
    assert answer.token_times_s().tolist() == [2.0]
    assert answer.content == png(96, 64, 5)


def test_a_video_of_so_many_frames() -> None:
    assert answered(VIDEO, mp4(9)).problem is None
    assert answered(VIDEO, mp4(8)).problem == "asked for a video of 9 frames, got 8"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (in_json(png(64, 64, 5)), "asked for an image of 96x64, got 64x64"),
        (in_json(b"GIF89a..."), "no PNG"),
        (b"", "Expecting value"),
        (b'{"data": []}', "no image in the answer"),
        (b'{"error": {"message": "CUDA out of memory"}}', "CUDA out of memory"),
    ],
)
def test_a_wrong_image_is_a_failure(body: bytes, says: str) -> None:
    answer = answered(IMAGE, body)
    assert answer.problem is not None and says in answer.problem
    assert answer.received == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_a_verdict(body: bytes) -> None:
    for request in (IMAGE, VIDEO):
        assert answered(request, body).problem


def test_the_calls() -> None:
    api = OmniApi(Output.IMAGE)
    call = api.completion(IMAGE, "m")
    body = json.loads(call.body)
    assert call.route == "/v1/images/generations"
    assert body == {
        "model": "m",
        "prompt": "a boat",
        "size": "96x64",
        "num_inference_steps": 4,
        "seed": 5,
        "guidance_scale": 4.5,
        "n": 1,
        "response_format": "b64_json",
    }
    call = api.completion(VIDEO, "m")
    assert call.route == "/v1/videos/sync"
    fields = fields_of(call.body, call.content_type)
    assert (fields["num_frames"], fields["fps"], fields["size"]) == ("9", "8", "96x64")


def test_the_command_has_omni_after_the_model() -> None:
    server = OmniServer(("vllm-omni",), "0.30.0")
    line = server.command_line(
        "m",
        Configuration({"vae_use_tiling": True, "ulysses_degree": 2}),
        host="127.0.0.1",
        port=81,
        served_name="n",
    )
    assert line[:4] == ("vllm-omni", "serve", "m", "--omni")
    assert line[-2:] == ("--vae-use-tiling", "--ulysses-degree=2")


def test_what_changes_pictures() -> None:
    rules = OmniFlags()
    assert all(
        map(rules.changes_outputs, ("cache_backend", "quantization", "diffusion_attention_backend"))
    )
    same = ("max_num_seqs", "ulysses_degree", "vae_use_tiling")
    assert not any(map(rules.changes_outputs, same))
    flags = {"ulysses_degree": 2, "ring_degree": 2, "cfg_parallel_size": 2}
    assert rules.gpus_used(Configuration(flags)) == 8
