"""Which server is tuned: the one place that knows the members of this folder.

Imports that a report does not need are made where they are used.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuner.configuration import Value
from tuner.servers.server import FlagRules, HttpApi, Server
from tuner.servers.vllm.flags import VllmFlags


def flag_rules() -> FlagRules:
    """Return what is known of the flags that search spaces and stored studies name."""
    return VllmFlags()


def installed_server(executable: str | None) -> Server:
    """Return the server of this machine: `executable`, or the one that is found.

    It is asked for its version and its flags, which may take a minute. Raises `PreflightError`.
    """
    from tuner.servers.vllm.server import VllmServer

    return VllmServer.installed(executable)


def emulated_server(
    command: tuple[str, ...], version: str, variables: Mapping[str, Value]
) -> Server:
    """Return the emulator's server, which answers as a vLLM does and is started by `command`."""
    from tuner.servers.vllm.server import VllmServer

    return VllmServer(command, version, variables=variables)


def running_server_api() -> HttpApi:
    """Return how a server is spoken to that somebody else runs (`--base-url`).

    It is taken for a vLLM. What it lacks of one, counters above all, is taken as not known.
    """
    from tuner.servers.vllm.api import VllmApi

    return VllmApi()
