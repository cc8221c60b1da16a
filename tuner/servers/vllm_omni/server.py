"""vLLM-Omni as a `Server`: a vLLM that is started with `--omni`, and serves a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuner.configuration import Configuration
from tuner.errors import PreflightError
from tuner.metrics import Output
from tuner.servers.server import FlagRules, HttpApi
from tuner.servers.vllm.command import find_vllm, known_flags, vllm_version
from tuner.servers.vllm.server import VllmServer
from tuner.servers.vllm_omni.api import OmniApi
from tuner.servers.vllm_omni.flags import OmniFlags

_OMNI = "--omni"


@dataclass(frozen=True, slots=True)
class OmniServer(VllmServer):
    """A vLLM-Omni; `command` is what stands before `serve`."""

    name: str = "vLLM-Omni"
    rules: FlagRules = field(default_factory=OmniFlags)
    api: HttpApi = field(default_factory=OmniApi)

    @classmethod
    def of(cls, executable: str | None, output: Output) -> OmniServer:
        """Find vLLM-Omni and ask it for its version and flags. Raises `PreflightError`."""
        command = find_vllm(executable, program="vllm-omni")
        flags = known_flags(command, _OMNI)
        if "cache_backend" not in flags:
            raise PreflightError(
                f"{' '.join(command)} serve --omni --help=all lists no flag of vLLM-Omni: images "
                "and videos need it (pip install vllm-omni); name its executable with --vllm"
            )
        return cls(command, vllm_version(command), flags, api=OmniApi(output))

    @property
    def limits_problem(self) -> str | None:
        """Why its limits do not change while it runs."""
        return "the limits of vLLM-Omni do not change while it runs"

    def command_line(
        self, model: str, configuration: Configuration, *, host: str, port: int, served_name: str
    ) -> tuple[str, ...]:
        """Return the command line that serves `model` as `served_name`.

        Raises `UsageError` for a flag that the tuner sets itself.
        """
        line = VllmServer.command_line(
            self, model, configuration, host=host, port=port, served_name=served_name
        )
        at = line.index("serve") + 2  # after the model
        return (*line[:at], _OMNI, *line[at:])
