"""Say whether a server can be forked from a process that has imported vLLM, on this machine.

    python can_fork.py

Exits with 0 if so: the imports leave nothing that a fork must not inherit, and a fork has the GPU.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

from tuner.servers.forking import fork_server
from tuner.servers.vllm.server import _IMPORTS


def main() -> int:
    """Import, look, fork; print what was found."""
    if os.environ.get(fork_server.LAUNCH_TAG) != fork_server.IMPORTED:
        os.environ[fork_server.LAUNCH_TAG] = fork_server.IMPORTED
        os.execv(sys.executable, [sys.executable, *sys.argv])
    before = fork_server._descriptors()
    began_s = time.monotonic()
    for name in _IMPORTS:
        importlib.import_module(name)
    print(f"imports took {time.monotonic() - began_s:.1f} s")
    if reason := fork_server._unsafe(before):
        print(f"servers cannot be forked: {reason}")
        for descriptor in fork_server._descriptors() - before:
            print(f"  {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        return 1
    pid = os.fork()
    if pid == 0:
        import torch

        print(f"a fork has {torch.zeros(1, device='cuda').device}", flush=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(f"the fork ended with exit code {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
