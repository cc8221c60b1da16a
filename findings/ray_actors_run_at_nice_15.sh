#!/usr/bin/env bash
# A Ray actor, and all that it starts, runs at the driver's nice value plus 15: any other process of the
# host comes first. A server or a load generator in an actor is then measured with the delays of a
# background job, though its node's CPUs were reserved with num_cpus. Nothing says so in the options
# of an actor. RAY_worker_niceness=0 in the actor's runtime_env is enough to end it, without root.
# Seen with ray 2.60.0.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check ray==2.60.0 2>/dev/null
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import os
import subprocess
from importlib.metadata import version

import ray

print("ray", version("ray"))
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote(num_cpus=1)
class Actor:
    def nice(self) -> tuple[int, int]:
        child = subprocess.run(["nice"], capture_output=True, text=True, check=True)
        return os.nice(0), int(child.stdout)


def nice(environment: dict[str, str]) -> tuple[int, int]:
    actor = Actor.options(runtime_env={"env_vars": environment}).remote()
    return ray.get(actor.nice.remote())


here = os.nice(0)
usual, plain = nice({"ANY": "1"}), nice({"RAY_worker_niceness": "0"})
print(f"driver: {here}; actor and its child: {usual}; with RAY_worker_niceness=0: {plain}")
expected = min(here + 15, 19)
raise SystemExit(usual != (expected, expected) or plain != (here, here))
PY
