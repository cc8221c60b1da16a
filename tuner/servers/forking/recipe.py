"""What has to be known of a server to fork it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForkRecipe:
    """The Python of a server, and the modules that its processes import.

    The first word of the server's command line is a script of that Python. The modules start no
    thread and use no device while they are imported; where they do, nothing is forked.
    """

    python: str
    modules: tuple[str, ...]
