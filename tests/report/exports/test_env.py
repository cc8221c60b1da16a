from __future__ import annotations

import subprocess
from pathlib import Path

from helpers.export_cases import ODD, WORDS

from tuner.report.exports.deployment import Deployment
from tuner.report.exports.env import env_file


def test_a_shell_reads_it_and_gets_every_word_as_it_is(awkward: Deployment, tmp_path: Path) -> None:
    vllm = tmp_path / "vllm"
    vllm.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$VLLM_USE_X" "$VLLM_ODD" $GPU_POWER_LIMIT_W\n')
    vllm.chmod(0o755)
    (tmp_path / "tuned.env").write_text(env_file(awkward))
    script = 'set -aeu; . ./tuned.env; set +a; eval "exec vllm serve $SERVE_ARGUMENTS"'
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["serve", *WORDS, "1", ODD, "400"]
