"""Kernel files (`/proc`, `/sys`, `/dev`) of a machine, under any root folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Host:
    """A machine by its `/proc`, `/sys` and `/dev`; `root` is `/` for this machine."""

    root: Path = Path("/")

    def path(self, name: str) -> Path:
        """Return the path of the absolute path `name` under the root."""
        return self.root / name.removeprefix("/")

    def text(self, name: str) -> str | None:
        """Return a file's text, stripped; None if it is missing or unreadable."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """Return the integer in a file; None without one (`max`, a missing file)."""
        text = self.text(name)
        return int(text) if text is not None and text.isdecimal() else None

    def glob(self, pattern: str) -> list[Path]:
        """Return the paths that match an absolute pattern, sorted."""
        return sorted(self.root.glob(pattern.removeprefix("/")))

    def capabilities(self) -> int | None:
        """Return the effective capabilities of this process as bits; None if unknown."""
        for line in (self.text("/proc/self/status") or "").splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff":
                return int(value, 16)
        return None
