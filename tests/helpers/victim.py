"""A tuner to be killed: it sets limits, runs a server that forks a setsid worker, and starts over.

Run as a process with one JSON argument; says on stdout what it is about to do.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from tuner.devices.leases.lease_book import LeaseBook, LeasedLimits, leased
from tuner.devices.limit_control import Access
from tuner.devices.open import open_limits, opened_limits
from tuner.errors import InterruptedBySignalError, TunerError
from tuner.host.signals import run_interruptible
from tuner.servers.guardian.guardian import guarded, repair
from tuner.servers.processes import stop_tagged, tag_environment

SERVER = r"""
import os, signal, sys, time
worker = os.fork()
if worker == 0:
    os.setsid()
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)
def stop(*_):
    os.kill(worker, signal.SIGKILL)
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else stop)
open(sys.argv[1], "w").close()
while True:
    time.sleep(60)
"""


def say(what: str) -> None:
    print(what, flush=True)


def start_server(run_tag: str, up: Path, *arguments: str) -> subprocess.Popen[bytes]:
    up.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-IS", "-c", SERVER, str(up), *arguments],
        env={**os.environ, **tag_environment(run_tag, "launch")},
        stdout=subprocess.DEVNULL,  # else who reads what the victim says would wait for it
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not up.exists():
        time.sleep(0.005)
    return process


async def cycle(asked: dict[str, Any], limits: LeasedLimits, number: int) -> None:
    say("set")
    limits.apply(power_limit_w=300.0 + 10 * (number % 5), sm_clock_mhz=1200 if number % 2 else None)
    say("serve")
    server = start_server(asked["run_tag"], Path(asked["folder"]) / "up")
    try:
        say("measure")
        await asyncio.sleep(asked.get("measure_s", 0.05))
    finally:
        say("stop")
        await asyncio.to_thread(stop_tagged, asked["run_tag"], grace_s=5.0)
        server.wait()
    say("restore")
    limits.apply()


async def run(asked: dict[str, Any]) -> None:
    state = Path(asked["folder"]) / "state"
    control = open_limits(Access.SET)
    assert control is not None
    for message in repair(state, partial(opened_limits, Access.SET)):
        say(f"repaired {message}")
    memory_bytes = {uuid: control.memory_used_bytes(uuid) for uuid in control.uuids()}
    try:
        async with guarded(
            asked["run_tag"],
            log_path=Path(asked["folder"]) / "guardian.log",
            state_folder=state,
            gpu_memory_bytes=memory_bytes if asked.get("knows_memory", True) else None,
            deadline_s=asked.get("deadline_s", 10.0),
        ) as guardian:
            say(f"guardian {guardian.pid}")
            if asked.get("fork"):
                hold_every_descriptor()
            for _ in range(asked.get("runs", 1)):
                with leased(control, control.uuids(), asked["run_tag"], LeaseBook(state)) as limits:
                    for number in range(asked.get("cycles", 1)):
                        await cycle(asked, limits, number)
    finally:
        control.close()


def hold_every_descriptor() -> None:
    """Fork a child that inherits even the pipe to the guardian, and lives on."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        time.sleep(30)
        os._exit(0)
    say(f"holder {pid}")


def main() -> int:
    try:
        run_interruptible(run(json.loads(sys.argv[1])))
    except InterruptedBySignalError as error:
        return error.exit_code
    except TunerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
