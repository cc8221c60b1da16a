"""Reading the files in which the kernel describes a machine, from any root folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Host:
    """A machine by its `/proc`, `/sys` and `/dev`; `root` is `/` for the one we are on."""

    root: Path = Path("/")

    def path(self, name: str) -> Path:
        """Return where the absolute path `name` is."""
        return self.root / name.removeprefix("/")

    def text(self, name: str) -> str | None:
        """Return what a file says, stripped; None where it is not there or not to be read."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """Return the whole number in a file; None where there is none (`max`, an absent file)."""
        text = self.text(name)
        return int(text) if text is not None and text.isdecimal() else None

    def glob(self, pattern: str) -> list[Path]:
        """Return the paths that match an absolute pattern, sorted."""
        return sorted(self.root.glob(pattern.removeprefix("/")))

    def capabilities(self) -> int | None:
        """Return the effective capabilities of this process as bits; None if not known."""
        for line in (self.text("/proc/self/status") or "").splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff":
                return int(value, 16)
        return None
