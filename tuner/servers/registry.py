"""Which server is tuned: the one place that knows the members of this folder.

Imports that a report does not need are made where they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.configuration import Value
from tuner.metrics import Output
from tuner.servers.server import FlagRules, HttpApi, Server
from tuner.servers.vllm_omni.flags import OmniFlags

if TYPE_CHECKING:
    import aiohttp


def flag_rules() -> FlagRules:
    """Return what is known of the flags that search spaces and stored studies name.

    vLLM-Omni takes vLLM's flags and its own.
    """
    return OmniFlags()


def installed_server(executable: str | None, output: Output = Output.TEXT) -> Server:
    """Return the server of this machine for what is asked for: `executable`, or what is found.

    It is asked for its version and its flags, which may take a minute. Raises `PreflightError`.
    """
    if not output.is_text:
        from tuner.servers.vllm_omni.server import OmniServer

        return OmniServer.of(executable, output)
    from tuner.servers.vllm.server import VllmServer

    return VllmServer.installed(executable)


def emulated_server(
    command: tuple[str, ...], version: str, variables: Mapping[str, Value]
) -> Server:
    """Return the emulator's server, which answers as a vLLM does and is started by `command`."""
    from tuner.servers.vllm.server import VllmServer

    return VllmServer(command, version, variables=variables)


async def running_server_api(session: aiohttp.ClientSession, base_url: str) -> HttpApi:
    """Return how a server is spoken to that somebody else runs (`--base-url`).

    One whose dialect is not known is taken for a vLLM; what it lacks of one, counters above all, is
    taken as not known. Raises `ServerUnreachableError`.
    """
    from tuner.servers.openai.text_api import TextApi, dialect_of
    from tuner.servers.vllm.api import VllmApi

    dialect = await dialect_of(session, base_url)
    return VllmApi() if dialect is None else TextApi(dialect)
