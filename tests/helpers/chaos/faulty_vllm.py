"""The emulator's server with faults: `python faulty_vllm.py FAULT WHICH serve …`.

`WHICH` is `all`, or a file that counts the launches: the first, the third … then have the fault, so
that a point that met it is measured when it is tried again. `crash` and `freeze` come after a
number of tokens that the port chooses (a frozen one still says that it is well), `stubborn`
ignores SIGTERM, `setsid` leaves a worker in a session of its own that ignores SIGTERM and holds
the port.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tuner.emulator import __main__ as emulator
from tuner.emulator.http.served_engine import ServedEngine


def fork_a_worker() -> None:
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)


def freeze(live: ServedEngine) -> None:
    live.engine.clock_s += 1e6  # its next step ends in eleven days


def fault_of(name: str, tokens: int) -> Callable[[object], Callable[[ServedEngine], None]]:
    acts: dict[str, Callable[[ServedEngine], None]] = {
        "crash": lambda _: os._exit(1),
        "freeze": freeze,
        "setsid": lambda _: fork_a_worker(),
    }
    done: list[bool] = []

    def check(live: ServedEngine) -> None:
        if not done and live.engine.counters.generation_tokens >= tokens:
            done.append(True)
            acts[name](live)

    return lambda _arguments: check


def is_faulty(which: str) -> bool:
    if which == "all":
        return True
    with Path(which).open("a+") as counted:
        counted.write(".")
        return counted.tell() % 2 == 1


if __name__ == "__main__":
    name, which, *words = sys.argv[1:]
    port = next((w for w in words if w.startswith("--port=")), "")
    chance = random.Random(port + words[1])
    if is_faulty(which):
        if name == "stubborn":
            emulator.signal.SIGTERM = signal.SIGUSR1  # type: ignore[misc]
            signal.signal(15, signal.SIG_IGN)
        else:
            emulator._fault = fault_of(name, chance.randint(1, 200))
    sys.exit(emulator.main(words))
