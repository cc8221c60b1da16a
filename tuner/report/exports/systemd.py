"""A configuration as a systemd unit, which sets the GPU's limits and puts back what it found."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.report.exports.deployment import PORT, Deployment, comments
from tuner.report.exports.limits import found_folder, note_and_set, put_back
from tuner.report.exports.vllm import withheld_notes

_GPUS = "CUDA_VISIBLE_DEVICES"
_CONTINUES = "\\"  # at the end of a line, it takes the next one in


def systemd_unit(deployment: Deployment) -> str:
    """Return a unit for /etc/systemd/system."""
    d = deployment
    gpus = " ".join(map(str, range(d.gpus)))
    notes = (
        *d.about,
        *withheld_notes(d),
        f"use: as root, write this to /etc/systemd/system/{d.name}.service, then",
        f"systemctl daemon-reload && systemctl enable --now {d.name}",
        *_undo(d),
        "adapt: PATH, so that it begins with the folder of vLLM's executable; the GPUs, in "
        f"{_GPUS} and in the lines that set limits; secrets go into /etc/default/{d.name}",
    )
    lines = [
        "[Unit]",
        f"Description=vLLM serving {_specifiers(' '.join(d.model.split())).rstrip(_CONTINUES)}",
        "Wants=network-online.target",
        "After=network-online.target nvidia-persistenced.service",
        "",
        "[Service]",
        'Environment="PATH=/opt/vllm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"',
        # compile caches go below the home folder, and a dynamic user has none that can be written
        *(f'Environment="{name}=%C/{d.name}"' for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME")),
        'Environment="CUDA_DEVICE_ORDER=PCI_BUS_ID"',
        f'Environment="{_GPUS}={gpus.replace(" ", ",")}"',
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in d.environment.items()),
        f"EnvironmentFile=-/etc/default/{d.name}",
        "DynamicUser=yes",
        f"CacheDirectory={d.name}",
        *_script("ExecStartPre", note_and_set(d, gpus) if d.has_limits else ()),
        f"ExecStart=/usr/bin/env vllm serve {_command((*d.words, f'--port={PORT}'))}",
        *_script("ExecStopPost", put_back(d) if d.has_limits else ()),
        "Restart=on-failure",
        "RestartSec=10",
        "TimeoutStopSec=120",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return comments(notes) + "\n".join(lines) + "\n"


def _undo(deployment: Deployment) -> tuple[str, ...]:
    name = deployment.name
    undo = f"undo: systemctl disable --now {name}; rm /etc/systemd/system/{name}.service"
    if not deployment.has_limits:
        return (undo,)
    return (
        undo,
        "stopping it puts back the limits that were found; meanwhile they are noted in "
        f"{found_folder(deployment)}",
    )


def _script(setting: str, lines: Iterable[str]) -> list[str]:
    """Return a setting that runs shell lines with full privileges, whatever the unit's user."""
    escaped = [_specifiers(line).replace("$", "$$") for line in lines]
    if not escaped:
        return []
    return [
        f"{setting}=+/bin/sh -c ' \\",
        *(f"  {line} \\" for line in escaped[:-1]),
        f"  {escaped[-1]}'",
    ]


def _command(words: Iterable[str]) -> str:
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def _quoted(text: str) -> str:
    """Return one word of a unit file: with C's escapes, and % doubled, in double quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'"{_specifiers(escaped)}"'.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    )


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")
