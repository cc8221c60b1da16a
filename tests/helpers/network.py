"""A network of its own for processes of this host, which can be cut off. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess


def can_be_made() -> bool:
    """Say whether a namespace and its cable can be made here."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    try:
        Network().remove()
    except subprocess.CalledProcessError:
        return False
    return True


class Network:
    """A network namespace of this host and a cable to it, which can be pulled out."""

    def __init__(self) -> None:
        self.name, number = f"ry{os.getpid()}", os.getpid() % 250
        self.address = f"10.213.{number}.2"
        self._plug = f"{self.name}-0"
        for words in (
            f"netns add {self.name}",
            f"link add {self._plug} type veth peer name {self.name}-1 netns {self.name}",
            f"addr add 10.213.{number}.1/24 dev {self._plug}",
            f"link set {self._plug} up",
            f"-n {self.name} addr add {self.address}/24 dev {self.name}-1",
            f"-n {self.name} link set {self.name}-1 up",
            f"-n {self.name} link set lo up",
            f"-n {self.name} route add default via 10.213.{number}.1",
        ):
            _ip(words)

    @property
    def inside(self) -> tuple[str, ...]:
        """The words that start a program in it."""
        return ("ip", "netns", "exec", self.name)

    def pull_out(self) -> None:
        """Let nothing pass any more."""
        _ip(f"link set {self._plug} down")

    def plug_in(self) -> None:
        """Let everything pass again."""
        _ip(f"link set {self._plug} up")

    def remove(self) -> None:
        """Remove it."""
        _ip(f"netns del {self.name}")


def _ip(words: str) -> None:
    subprocess.run(
        ["ip", *words.split()], check=True, capture_output=True, stdin=subprocess.DEVNULL
    )
