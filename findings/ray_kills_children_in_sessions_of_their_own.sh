#!/usr/bin/env bash
# A process that a Ray actor starts in a session of its own (`start_new_session=True`, as daemons are
# kept alive past their parent) is killed with SIGKILL when the actor ends in order. Ray's worker kills
# its direct children whatever their session, so no clean-up process of a server survives it. With
# RAY_kill_child_processes_on_worker_exit=0 in the actor's environment it lives, as does a
# grandchild that was orphaned at once (a double fork).
# Seen with ray 2.60.0.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check ray==2.60.0 2>/dev/null
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import ray

print("ray", version("ray"))
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]
ORPHAN = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print(p.pid)"


@ray.remote
class Starter:
    def child(self) -> int:
        return subprocess.Popen(SLEEP, start_new_session=True).pid

    def orphan(self) -> int:
        done = subprocess.run([sys.executable, "-c", ORPHAN, *SLEEP], capture_output=True, check=True)
        return int(done.stdout)

    def leave(self) -> None:
        ray.actor.exit_actor()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def left(environment: dict[str, str]) -> tuple[bool, bool]:
    """What is alive after the actor has ended in order: its child, its orphan."""
    actor = Starter.options(runtime_env={"env_vars": environment}).remote()
    pids = ray.get(actor.child.remote()), ray.get(actor.orphan.remote())
    assert all(lives(pid) for pid in pids)
    actor.leave.remote()
    time.sleep(5)
    alive = lives(pids[0]), lives(pids[1])
    for pid in pids:
        if lives(pid):
            os.kill(pid, signal.SIGKILL)
    return alive


plain = left({})
kept = left({"RAY_kill_child_processes_on_worker_exit": "0"})
ray.shutdown()
print("alive after the actor's end (child, orphan):", plain, "with the variable:", kept)
assert plain == (False, True), plain
assert kept == (True, True), kept
PY
