"""A configuration as a Compose file: vLLM, and a service that holds the GPU's limits."""

from __future__ import annotations

from typing import Any

from tuner.report.exports.deployment import CACHE_FOLDER, PORT, Deployment, comments
from tuner.report.exports.limits import READY_FILE, found_folder, hold
from tuner.report.exports.vllm import withheld_notes
from tuner.report.exports.yaml_text import yaml_text

_HEALTHY = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{PORT}/health')"


def compose_file(deployment: Deployment) -> str:
    """Return a file for `docker compose -f FILE up -d`."""
    d = deployment
    notes = (
        *d.about,
        *withheld_notes(d),
        "use: docker compose -f THIS_FILE.yaml up -d (secrets: in the environment, or in .env)",
        "undo: docker compose -f THIS_FILE.yaml down"
        + (
            ", which also puts back the limits that were found; meanwhile they are noted in "
            f"{found_folder(d)}"
            if d.has_limits
            else ""
        ),
        "adapt: the GPUs, in device_ids" + (" and in gpus=" if d.has_limits else ""),
        *(("adapt: pin the version of the image",) if d.release is None else ()),
    )
    services = {"vllm": _server(d)} | ({"gpu-limits": _limits(d)} if d.has_limits else {})
    data = {"name": d.name, "services": services, "volumes": {"cache": {}}}
    return comments(notes) + yaml_text(data)


def _server(d: Deployment) -> dict[str, Any]:
    environment = {name: f"${{{name}:-}}" for name in d.secrets}
    environment |= {"HOME": CACHE_FOLDER, "HF_HOME": f"{CACHE_FOLDER}/huggingface"}
    environment |= {name: _literal(value) for name, value in d.environment.items()}
    folder = d.model_folder
    mounts = [] if folder is None else [_bind(folder, read_only=True)]
    server: dict[str, Any] = {
        "image": d.image,
        "entrypoint": ["vllm", "serve"],
        "command": [_literal(word) for word in (*d.words, f"--port={PORT}")],
        "environment": environment,
        "ports": [f"{PORT}:{PORT}"],
        "ipc": "host",
        "volumes": [f"cache:{CACHE_FOLDER}", *mounts],
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _HEALTHY],
            "interval": "10s",
            "start_period": "30m",
        },
        "restart": "unless-stopped",
        "deploy": _gpus([str(n) for n in range(d.gpus)], "gpu"),
    }
    if d.has_limits:
        server["depends_on"] = {"gpu-limits": {"condition": "service_healthy"}}
    return server


def _limits(d: Deployment) -> dict[str, Any]:
    gpus = [str(n) for n in range(d.gpus)]
    return {
        "image": d.image,
        "entrypoint": ["/bin/sh", "-c"],
        "command": [_literal("\n".join(hold(d, " ".join(gpus))) + "\n")],
        "privileged": True,
        "volumes": [_bind(found_folder(d), read_only=False)],
        "healthcheck": {"test": ["CMD", "test", "-e", READY_FILE], "interval": "2s", "retries": 30},
        "restart": "unless-stopped",
        "stop_grace_period": "1m",
        "deploy": _gpus(gpus, "utility"),
    }


def _gpus(ids: list[str], capability: str) -> dict[str, Any]:
    capabilities = list(dict.fromkeys(("gpu", capability)))
    device = {"driver": "nvidia", "device_ids": ids, "capabilities": capabilities}
    return {"resources": {"reservations": {"devices": [device]}}}


def _bind(folder: str, *, read_only: bool) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": _literal(folder),
        "target": _literal(folder),
        "read_only": read_only,
        "bind": {"create_host_path": not read_only},
    }


def _literal(text: str) -> str:
    """Return text in which Compose replaces nothing."""
    return text.replace("$", "$$")
