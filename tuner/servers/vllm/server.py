"""vLLM as a `Server`: its command line, and the parts by which the tuner knows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuner.configuration import MODEL, Configuration, Value
from tuner.errors import UsageError, unknown_name
from tuner.servers.forking.recipe import ForkRecipe
from tuner.servers.server import FlagRules, HttpApi, LogReader
from tuner.servers.vllm.adjustable import SCHEDULER_FLAG
from tuner.servers.vllm.api import VllmApi
from tuner.servers.vllm.command import find_vllm
from tuner.servers.vllm.flags import VllmFlags
from tuner.servers.vllm.installed import inspect
from tuner.servers.vllm.log.diagnosis import VllmLog
from tuner.servers.vllm.sources import VllmSources, python_of, read_sources

# Flags by which the tuner reaches the server; a study cannot have them as well.
_ADDRESS_FLAGS = ("host", "port", "uds", "root_path", "ssl_certfile", "ssl_keyfile", "api_key")
_SERVER_FLAGS = ("served_model_name", "config", "grpc", "headless")
RESERVED_FLAGS = frozenset((*_ADDRESS_FLAGS, *_SERVER_FLAGS))
# Of the API server and the engine. Those of the GPU worker are left out: some versions open the
# device while they are imported.
_IMPORTS = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
)
_USAGE_VARIABLE = "VLLM_NO_USAGE_STATS"


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A vLLM, or what answers as one does; `command` is what stands before `serve`."""

    command: tuple[str, ...]
    version: str
    known_flags: frozenset[str] | None = None
    variables: Mapping[str, Value] = field(default_factory=dict)
    sources: VllmSources | None = None
    name: str = "vLLM"
    rules: FlagRules = field(default_factory=VllmFlags)
    api: HttpApi = field(default_factory=VllmApi)
    log: LogReader = field(default_factory=VllmLog)

    @classmethod
    def installed(cls, executable: str | None) -> VllmServer:
        """Find vLLM and ask it for its version and flags. Raises `PreflightError`."""
        command = find_vllm(executable)
        # opens /server_info on 127.0.0.1, which says what the default of each flag is
        variables = {"VLLM_SERVER_DEV_MODE": "1"}
        found = inspect(command)
        return cls(command, found.version, found.flags, variables, read_sources(command))

    def unknown_flag(self, name: str) -> str | None:
        """Say that this version does not take a flag or one of its fields; None if it does."""
        flag, _, rest = name.partition(".")
        if self.known_flags is not None and flag not in self.known_flags:
            return unknown_name(f"flag of {self.name} {self.version}", flag, self.known_flags)
        for inner in rest.split(".") if rest else ():
            fields = None if self.sources is None else self.sources.fields_of(flag)
            if fields is None:
                return None
            if inner not in fields:
                return unknown_name(f"field of {flag} in {self.name} {self.version}", inner, fields)
            flag = inner
        return None

    def unknown_variable(self, name: str) -> str | None:
        """Say that this version does not know one of vLLM's variables; None if it does."""
        if self.sources is None or not self.sources.lacks_variable(name):
            return None
        flag = name.partition("_")[2].lower()
        if flag in (self.known_flags or ()):
            return (
                f"{self.name} {self.version} does not know the variable {name}; it is the flag "
                f"'{flag}' now: write it under `flags:`"
            )
        what = f"variable of {self.name} {self.version}"
        return unknown_name(what, name, self.sources.variables)

    @property
    def limits_problem(self) -> str | None:
        """Why this version cannot change limits while it runs; None if it may."""
        if self.known_flags is None or SCHEDULER_FLAG in self.known_flags:
            return None
        return (
            f"vLLM {self.version} takes no scheduler of ours (--scheduler-cls), so its limits "
            "cannot change while it runs"
        )

    @property
    def environment(self) -> Mapping[str, Value]:
        """The variables of every launch; hundreds of launches in a night are nobody's usage."""
        return {_USAGE_VARIABLE: os.environ.get(_USAGE_VARIABLE, "1"), **self.variables}

    @property
    def forks(self) -> ForkRecipe | None:
        """The Python of the script that starts it; None if it is no script."""
        python = python_of(Path(self.command[0])) if len(self.command) == 1 else None
        return None if python is None else ForkRecipe(python, _IMPORTS)

    def command_line(
        self, model: str, configuration: Configuration, *, host: str, port: int, served_name: str
    ) -> tuple[str, ...]:
        """Return the command line that serves `model` as `served_name`.

        A configuration with a model of its own serves that one.

        Raises `UsageError` for a flag that the tuner sets itself.
        """
        flags = configuration.flags
        reserved = sorted(RESERVED_FLAGS & flags.keys())
        if reserved:
            raise UsageError(f"the flag '{reserved[0]}' is set by the tuner; leave it out")
        return (
            *self.command,
            "serve",
            str(flags.get(MODEL, model)),
            f"--host={host}",
            f"--port={port}",
            f"--served-model-name={served_name}",
            *(self.rules.word(name, value) for name, value in flags.items() if name != MODEL),
        )
