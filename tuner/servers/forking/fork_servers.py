"""Fork servers of a run, as the tuner sees them: how to launch with them, and their end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tuner.host.files.private import private_folder
from tuner.servers.forking import fork_server
from tuner.servers.forking.fork_server import IMPORTED, Place
from tuner.servers.forking.recipe import ForkRecipe
from tuner.servers.processes import stop_tagged, tagged_processes, wait_until

_END_S = 2.0


class ForkServers:
    """The fork servers of a run: the first launch starts them, `close` ends them.

    They also end with this process, however that ends, and have the run's tag.
    """

    def __init__(self, run_tag: str, folder: Path, recipe: ForkRecipe) -> None:
        self._run_tag = run_tag
        self._folder = folder
        self._recipe = recipe
        private_folder(folder.parent)
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run that was killed
        folder.mkdir(mode=0o700)
        self._alive_fd, self._ends_fd = os.pipe()

    @property
    def passed_fds(self) -> tuple[int, ...]:
        """The descriptors that a launch has to inherit."""
        return (self._alive_fd,)

    def command_line(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return the command line of a process that stands in for a forked server."""
        place = Place(str(self._folder.resolve()), self._alive_fd, self._recipe.modules)
        script = str(Path(fork_server.__file__).resolve())
        return (self._recipe.python, script, "start", json.dumps(asdict(place)), *argv)

    def close(self) -> None:
        """End them; their servers have to be stopped before. Raises `OperatorNeededError`."""
        os.close(self._ends_fd)
        os.close(self._alive_fd)
        wait_until(lambda: not tagged_processes(self._run_tag, launch_tag=IMPORTED), _END_S)
        stop_tagged(self._run_tag, launch_tag=IMPORTED, grace_s=0)
        shutil.rmtree(self._folder, ignore_errors=True)
