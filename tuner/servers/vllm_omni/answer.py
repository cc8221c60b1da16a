"""Answers of images and videos: taken in whole, and looked at: format, size and frames."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from array import array

from tuner.records import GenerationRequest
from tuner.servers.openai.stream import SHOWN_CHARACTERS, CompletionStream

_MOST_BYTES = 512 * 2**20
_PNG = b"\x89PNG\r\n\x1a\n"


class GenerationAnswer(CompletionStream):
    """Follows the answer to a request for one image or video; it counts when its last byte came."""

    __slots__ = ("_arrived_s", "_parts", "_request", "_size", "content")

    def __init__(self, request: GenerationRequest) -> None:
        super().__init__(request.prompt_token_ids.size, 1)
        self._request = request
        self._parts: list[bytes] = []
        self._size = 0
        self._arrived_s: float | None = None
        self.content: bytes | None = None  # the PNG or MP4, once it is whole

    def progress(self) -> str:
        """`k bytes`."""
        return f"{self._size} bytes"

    def feed(self, data: bytes, now_s: float) -> None:
        """Take in what arrived at `now_s`."""
        self._size += len(data)
        if self._size > _MOST_BYTES:
            self.problem = f"an answer of more than {_MOST_BYTES >> 20} MiB"
            return
        self._parts.append(data)
        self._arrived_s = now_s

    def close(self, now_s: float) -> None:
        """Take in that the answer has ended, and give the verdict."""
        if self.problem is not None or self.ended_s is not None:
            return
        body = b"".join(self._parts)
        self._parts.clear()
        try:
            self.content = body if self._request.fps is not None else image_in(body)
            self._look_at(self.content)
        except ValueError as error:
            self.problem = str(error)
            return
        self.ended_s = now_s if self._arrived_s is None else self._arrived_s
        self._times_s = array("d", [self.ended_s])

    def _look_at(self, content: bytes) -> None:
        asked = self._request
        if asked.fps is None:
            width, height = png_size(content)
            if (width, height) != (asked.width, asked.height):
                raise ValueError(
                    f"asked for an image of {asked.width}x{asked.height}, got {width}x{height}"
                )
            return
        frames = mp4_frames(content)
        if frames != asked.frames:
            raise ValueError(f"asked for a video of {asked.frames} frames, got {frames}")


def image_in(body: bytes) -> bytes:
    """Return the image of an answer in JSON; raises `ValueError` that quotes an error."""
    try:
        answer = json.loads(body)
        if isinstance(answer, dict) and answer.get("error") is not None:
            raise ValueError(f"error in the answer: {str(answer['error'])[:SHOWN_CHARACTERS]}")
        return base64.b64decode(answer["data"][0]["b64_json"], validate=True)
    except (TypeError, LookupError, RecursionError, binascii.Error) as error:
        raise ValueError(f"no image in the answer ({type(error).__name__})") from None


def png_size(content: bytes) -> tuple[int, int]:
    """Return width and height of a PNG; raises `ValueError`."""
    if not content.startswith(_PNG) or content[12:16] != b"IHDR" or len(content) < 24:
        raise ValueError(f"no PNG, but {content[:12]!r}")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def mp4_frames(content: bytes) -> int:
    """Return how many frames the video track of an MP4 has; raises `ValueError`."""
    if content[4:8] != b"ftyp":
        raise ValueError(f"no MP4, but {content[:SHOWN_CHARACTERS].decode(errors='replace')!r}")
    track = content.find(b"vmhd")  # of a video track; its table of sample sizes follows
    table = content.find(b"stsz", track) if track >= 0 else -1
    if table < 0 or len(content) < table + 16:
        raise ValueError("an MP4 without a video")
    return int.from_bytes(content[table + 12 : table + 16], "big")
