"""The environment of the exported unit, and nothing else, starts a real vLLM with graphs on.

As the unit's user: one that owns nothing but its cache folder, and whose home is `/`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.export_cases import having
from helpers.studies import TINY_LLAMA, wait_for
from helpers.tiny_vllm import needs_vllm

from tuner.analysis.recommendation.recommend import Recommendation
from tuner.report.exports.deployment import deployment
from tuner.report.exports.systemd import systemd_unit
from tuner.servers.processes import stop_tagged, tag_environment
from tuner.servers.vllm.command import find_vllm

NOBODY = 65534
FLAGS = {
    "max_num_seqs": 4,
    "max_model_len": 128,
    "load_format": "dummy",
    "dtype": "float32",
    "skip_tokenizer_init": True,
}
pytestmark = [
    *needs_vllm(timeout_s=1200.0),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux"),
]


def environment_of(unit: str, cache: Path) -> dict[str, str]:
    """What systemd gives a dynamic user, and the unit's own lines over it."""
    words = [shlex.split(line)[0] for line in re.findall(r"^Environment=(.*)$", unit, re.M)]
    own = dict(word.replace("%C/", f"{cache}/").split("=", 1) for word in words)
    return {"HOME": "/", "USER": "nobody", "LOGNAME": "nobody", "LANG": "C.UTF-8", **own}


def test_the_units_environment_starts_a_vllm_that_compiles(
    found: Recommendation, tmp_path: Path
) -> None:
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "config.json").write_text(TINY_LLAMA)
    variables = {"VLLM_CPU_KVCACHE_SPACE": 1, "HF_HUB_OFFLINE": 1}
    asked = having(found, flags=dict(FLAGS), environment=variables)
    chosen = deployment(replace(asked, study=replace(asked.study, model=str(model))))
    environment = environment_of(systemd_unit(chosen), tmp_path)
    own = tmp_path / chosen.name
    own.mkdir()  # CacheDirectory=
    os.chown(own, NOBODY, NOBODY)
    vllm = Path(find_vllm(os.environ["TUNER_VLLM"])[0])
    environment["PATH"] = environment["PATH"].replace("/opt/vllm/bin", str(vllm.parent))
    tag = f"unit-{os.getpid()}"
    # it may read whatever root may, where the executable and the model lie, and write nothing of it
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *may_read]
    log = tmp_path / "vllm.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*as_nobody, "/usr/bin/env", "vllm", "serve", *chosen.words, "--port=0"],
            cwd="/",
            env={**environment, **tag_environment(tag, tag)},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        wait_for(lambda: is_up(log) or process.poll() is not None, 900, log.read_text)
        assert process.poll() is None, log.read_text()[-4000:]
    finally:
        stop_tagged(tag, grace_s=20.0)
        process.wait(20)
    compiled = [path for path in own.glob("vllm/torch_compile_cache/**/*") if path.is_file()]
    assert compiled, sorted(own.rglob("*"))[:20]  # not eager, and kept for the next start


def is_up(log: Path) -> bool:
    return "Application startup complete" in log.read_text()
