"""Plain text: what a store, a server or a log says, without what would steer a terminal.

Control characters (C0 and C1), sequences that begin with ESC or CSI, and characters that change the
order of what is read (Unicode's bidirectional controls) come from data and never from the tuner.
"""

from __future__ import annotations

import re

_SEQUENCES = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"  # OSC: a window's title, for example
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\|$)"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"
)
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SHOWN = "\N{REPLACEMENT CHARACTER}"


def plain_text(text: str) -> str:
    """Return `text` with line breaks and tabs as its only control characters.

    Whole sequences are left out, so that a coloured word is the word; other characters are shown.
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub(_SHOWN, _SEQUENCES.sub("", text.replace("\r\n", "\n")))
