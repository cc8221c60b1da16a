"""Two tuners on one GPU, with different state folders or none."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from helpers.studies import wait_for

from tuner.devices.leases.claims import claim
from tuner.errors import PreflightError

HOLD = (
    "import sys; from tuner.devices.leases.claims import claim; "
    "c = claim(sys.argv[1:]); print(1, flush=1)"
)


@pytest.fixture
def gpus() -> list[str]:
    return [f"GPU-{uuid.uuid4()}" for _ in range(2)]


def test_a_gpu_is_claimed_once(gpus: list[str]) -> None:
    with claim(gpus[:1]):
        with pytest.raises(PreflightError, match=rf"{gpus[0]} is in use.*process {os.getpid()}\)"):
            claim(gpus)
        claim(gpus[1:]).close()  # nothing was kept of what could not be had whole
    claim(gpus).close()


def test_a_claim_ends_with_its_process_however_it_ends(gpus: list[str]) -> None:
    words = [sys.executable, "-c", f"{HOLD}; import time; time.sleep(60)", *gpus]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"1\n"
    with pytest.raises(PreflightError, match=f"process {holder.pid}"):
        claim(gpus)
    holder.kill()
    holder.communicate()
    claim(gpus).close()


def test_a_program_that_is_started_does_not_inherit_it(gpus: list[str]) -> None:
    with claim(gpus):
        child = subprocess.Popen(["/bin/sleep", "20"], close_fds=False)
    try:
        # it is named once the kernel has closed what a program does not inherit
        wait_for(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", 5.0)
        claim(gpus).close()
    finally:
        child.kill()
        child.wait()
