"""The `vllm` and `env` exports start a real vLLM, which then has every value of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from helpers.export_cases import having
from helpers.studies import TINY_LLAMA, wait_for
from helpers.tiny_vllm import SMALL, needs_vllm

from tuner.analysis.recommendation.recommend import Recommendation
from tuner.report.exports.deployment import Deployment, deployment
from tuner.report.exports.env import env_file
from tuner.report.exports.vllm import vllm_config
from tuner.servers.processes import stop_tagged, tag_environment
from tuner.servers.vllm.command import find_vllm

pytestmark = needs_vllm(timeout_s=900.0)

FLAGS = {
    "max_num_seqs": 7,
    "max_num_batched_tokens": 448,
    "max_model_len": 320,
    "enable_prefix_caching": False,
    "seed": 11,
    "skip_tokenizer_init": True,
    "additional_config": '{"tuner test": ["a b", "$HOME"]}',
    **SMALL,
}
# where /server_info has each of them
EXPECTED = {
    ("scheduler_config", "max_num_seqs"): 7,
    ("scheduler_config", "max_num_batched_tokens"): 448,
    ("model_config", "max_model_len"): 320,
    ("cache_config", "enable_prefix_caching"): False,
    ("model_config", "seed"): 11,
    ("model_config", "skip_tokenizer_init"): True,
    ("model_config", "enforce_eager"): True,
    ("model_config", "dtype"): "torch.float32",
    ("load_config", "load_format"): "dummy",
    ("additional_config", "tuner test"): ["a b", "$HOME"],
}


def small(found: Recommendation, folder: Path) -> Deployment:
    model = folder / "a tiny model"  # with spaces
    model.mkdir()
    (model / "config.json").write_text(TINY_LLAMA)
    asked = having(found, flags=dict(FLAGS), environment={"VLLM_CPU_KVCACHE_SPACE": 1})
    return deployment(replace(asked, study=replace(asked.study, model=str(model))))


@pytest.mark.parametrize("form", ["vllm", "env"])
def test_a_real_vllm_shows_every_value(found: Recommendation, tmp_path: Path, form: str) -> None:
    chosen = small(found, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    vllm = find_vllm(os.environ["TUNER_VLLM"])[0]
    if form == "vllm":
        (tmp_path / "tuned.yaml").write_text(vllm_config(chosen))
        script = f'exec "$0" serve --config tuned.yaml --port {port}'
    else:
        (tmp_path / "tuned.env").write_text(env_file(chosen))
        serve = f'eval "exec \\"$0\\" serve $SERVE_ARGUMENTS --port {port}"'
        script = f"set -a; . ./tuned.env; set +a; {serve}"
    tag = f"export-{os.getpid()}-{form}"
    environment = {
        **os.environ,
        **tag_environment(tag, tag),
        **chosen.environment,
        "HF_HUB_OFFLINE": "1",
        "VLLM_SERVER_DEV_MODE": "1",
    }
    log = tmp_path / "vllm.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["/bin/sh", "-c", script, vllm],
            cwd=tmp_path,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        shown = info_of(port, process, log)
    finally:
        stop_tagged(tag, grace_s=20.0)
        process.wait(20)
    config = shown["vllm_config"]
    assert config["model_config"]["model"] == chosen.model
    found_values = {(part, name): config[part][name] for part, name in EXPECTED}
    assert found_values == EXPECTED


def info_of(port: int, process: subprocess.Popen[bytes], log: Path) -> Any:
    answers: list[Any] = []

    def is_up() -> bool:
        try:
            url = f"http://127.0.0.1:{port}/server_info?config_format=json"
            with urlopen(url, timeout=10) as answer:
                answers.append(json.load(answer))
        except (URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, log.read_text()[-3000:]
            return False
        return True

    wait_for(is_up, 500, log.read_text)
    return answers[0]
