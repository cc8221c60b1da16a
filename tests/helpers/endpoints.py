"""Endpoints of the servers that tests run, all spoken to as vLLM."""

from __future__ import annotations

from tuner.servers.server import Endpoint
from tuner.servers.vllm.api import VllmApi


def served(url: str, name: str = "served") -> Endpoint:
    """Return the endpoint of a model that is served at `url`."""
    return Endpoint(VllmApi(), url, name)
