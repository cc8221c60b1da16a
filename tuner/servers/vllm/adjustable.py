"""Live limits of vLLM: which flags can change while it runs, and how they change.

vLLM is launched with a scheduler of ours (`live_limits.py`), which reads its limits from a file
between its steps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tuner.configuration import Configuration, Value
from tuner.host.files.private import open_private, private_folder
from tuner.records import Failure
from tuner.servers.server import Flags, Limits, NotReusableError
from tuner.servers.vllm import live_limits
from tuner.servers.vllm.live_limits import FILE_VARIABLE, LimitsFile, State

SEQS, TOKENS = "max_num_seqs", "max_num_batched_tokens"
SCHEDULER_FLAG = "scheduler_cls"
_MODULE = "tuner_live_limits"
# With these the limits of a launch are not the scheduler's alone.
_OWN_SCHEDULING = (SCHEDULER_FLAG, "speculative_config", "max_num_active_seqs")


class VllmLimits:
    """The requests and the tokens of one step of the scheduler."""

    flags = (SEQS, TOKENS)

    def governs(self, flags: Flags) -> bool:
        """Say whether the scheduler's limits alone decide how these flags schedule."""
        if any(name.partition(".")[0] in _OWN_SCHEDULING for name in flags):
            return False  # with drafts vLLM sets the tokens of a step itself
        if int(flags.get("data_parallel_size", 1)) > 1:
            return False  # several engines, each with a scheduler of its own
        if flags.get("enable_chunked_prefill") is False:
            return False  # a prompt longer than the limit would wait for ever
        return all(isinstance(flags.get(name, 1), int) for name in self.flags)  # not 8k

    def launch_flags(self, flags: Flags, largest: Limits) -> Flags:
        """Return the flags of a launch whose limits can be any up to `largest`."""
        launched = {**flags, **largest}
        if SEQS in largest and TOKENS in launched:  # which vLLM insists on
            launched[TOKENS] = max(int(launched[SEQS]), int(launched[TOKENS]))
        return launched

    def limits(self, flags: Flags) -> Limits:
        """Return the limits that these flags ask for.

        vLLM's default for the requests of a step is never above its tokens.
        """
        tokens = flags.get(TOKENS)
        asked = {SEQS: flags.get(SEQS, tokens), TOKENS: tokens}
        return {name: int(value) for name, value in asked.items() if value is not None}

    def most_running(self, limits: Limits) -> int | None:
        """Return how many requests may run at once under limits; None if that is not limited."""
        return limits.get(SEQS)

    def open(self, folder: Path, name: str, configuration: Configuration) -> VllmLimitsChannel:
        """Create the limits file of one server, and put the scheduler beside it.

        Both get a new folder of their own, since the server imports from it: what others, or an
        earlier run, may have left there must not be run. Raises `OSError`.
        """
        private_folder(folder)
        own = folder / name
        if own.is_symlink():
            own.unlink()
        elif own.exists():
            shutil.rmtree(own)
        own.mkdir(mode=0o700)
        with os.fdopen(open_private(own / f"{_MODULE}.py", os.O_WRONLY), "wb") as copy:
            copy.write(_source())
        return VllmLimitsChannel(LimitsFile.create(own / f"{name}.limits"), configuration)


class VllmLimitsChannel:
    """The limits file of one server."""

    def __init__(self, file: LimitsFile, configuration: Configuration) -> None:
        self.file = file
        self._asked = configuration

    @property
    def configuration(self) -> Configuration:
        """The configuration with the scheduler that reads the file."""
        asked, folder = self._asked, str(self.file.path.parent)
        path = asked.environment.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
        environment: Mapping[str, Value] = {
            "PYTHONPATH": os.pathsep.join([folder, *([str(path)] if path else [])]),
            FILE_VARIABLE: str(self.file.path),
        }
        scheduler = f"{_MODULE}.{live_limits.LiveScheduler.__name__}"
        return Configuration(
            flags={**asked.flags, SCHEDULER_FLAG: scheduler},
            environment={**asked.environment, **environment},
            device=asked.device,
            load=asked.load,
        )

    def problem(self) -> str | None:
        """Say why a server that is ready cannot change its limits; None if it can."""
        if self.file.state is State.READY:
            return None
        return self.file.reason or "the server does not read its limits file"

    def blamed_for(self, failure: Failure) -> str | None:
        """Say why a launch failed if vLLM objected to the scheduler that it was given."""
        is_refused = self.file.state is State.UNSUPPORTED
        if is_refused or is_about_scheduler(failure.reason):
            return self.file.reason or failure.reason
        return None

    async def change(self, limits: Limits, step: Callable[[], Awaitable[None]]) -> None:
        """Ask for limits and see them acknowledged. Raises `NotReusableError`."""
        wanted = live_limits.Limits(limits.get(SEQS), limits.get(TOKENS))
        generation = self.file.want(wanted)
        await step()
        applied = self.file.applied
        if applied.generation != generation:
            raise NotReusableError("the server works, but does not take new limits")
        if applied.limits != wanted.under(self.file.most):
            raise NotReusableError(f"the server took {applied.limits} where {wanted} was asked for")

    def close(self) -> None:
        """Unmap the file; it stays where it is."""
        self.file.close()


def is_about_scheduler(reason: str) -> bool:
    """Say whether a server that did not start objected to the scheduler that it was given."""
    words = (_MODULE, SCHEDULER_FLAG, SCHEDULER_FLAG.replace("_", "-"))
    return any(word in reason for word in words)


def _source() -> bytes:
    return Path(live_limits.__file__).read_bytes()
