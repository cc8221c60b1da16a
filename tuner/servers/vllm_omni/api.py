"""vLLM-Omni's HTTP API: images and videos, health, counters.

Sources: `vllm_omni/entrypoints/openai/protocol/images.py` and `videos.py` of vLLM-Omni 0.30.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import numpy as np

from tuner.metrics import Output
from tuner.records import GenerationRequest, Prompt, Request
from tuner.servers.openai.replies import body_of, reply_to
from tuner.servers.server import (
    Flags,
    HttpCall,
    NotAnsweredError,
    ServerSample,
    TokenIds,
)
from tuner.servers.vllm.api import VllmApi
from tuner.servers.vllm.counters import scrape
from tuner.servers.vllm_omni.answer import GenerationAnswer

_QUOTE_BYTES = 200
IMAGES, VIDEOS = "/v1/images/generations", "/v1/videos/sync"
_NO_IDS = "it makes images and videos, which have no token ids"


class OmniApi(VllmApi):
    """A vLLM-Omni that serves one diffusion model, of images or of videos."""

    def __init__(self, output: Output = Output.IMAGE) -> None:
        self._output = output

    def completion(self, request: Request, served_name: str) -> HttpCall:
        """Return the call that makes one image or video, and answers when it is done."""
        asked = _generation(request)
        fields: dict[str, object] = {
            "model": served_name,
            "prompt": asked.prompt,
            "size": f"{asked.width}x{asked.height}",
            "num_inference_steps": asked.steps,
            "seed": asked.seed,
        }
        if asked.guidance is not None:
            fields["guidance_scale"] = asked.guidance
        if asked.fps is None:
            body = fields | {"n": 1, "response_format": "b64_json"}
            return HttpCall(IMAGES, json.dumps(body, separators=(",", ":")).encode())
        fields |= {"num_frames": asked.frames, "fps": round(asked.fps)}
        body_bytes, content_type = form(fields)
        return HttpCall(VIDEOS, body_bytes, content_type=content_type)

    def stream(self, request: Request) -> GenerationAnswer:
        """Return what takes in the whole answer to that call, and looks at it."""
        return GenerationAnswer(_generation(request))

    async def greedy_answer(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        prompt: Sequence[int],
        max_tokens: int,
    ) -> TokenIds:
        """Raise `NotAnsweredError`: there are no tokens to compare."""
        raise NotAnsweredError(_NO_IDS)

    async def greedy_text(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        prompt: Prompt,
        max_tokens: int,
        chat_fields: Mapping[str, Any] | None = None,
    ) -> str:
        """Raise `NotAnsweredError`: there is no text."""
        raise NotAnsweredError(_NO_IDS)

    async def picture(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        request: GenerationRequest,
    ) -> bytes:
        """Return the image (PNG) or video (MP4) of a request.

        Raises `NotAnsweredError`, and `TimeoutError` at the deadline of the session.
        """
        call, answer = self.completion(request, served_name), GenerationAnswer(request)
        url, headers = base_url.rstrip("/") + call.route, {"Content-Type": call.content_type}
        try:
            async with reply_to(session, "POST", url, data=call.body, headers=headers) as reply:
                if reply.status != 200:
                    said = (await body_of(reply))[:_QUOTE_BYTES].decode(errors="replace")
                    raise NotAnsweredError(f"HTTP {reply.status}: {said}")
                async for piece in reply.content.iter_any():
                    answer.feed(piece, 0.0)
                    if answer.problem is not None:
                        break
        except TimeoutError:  # one of aiohttp's errors, too: how long to wait is the caller's
            raise
        except aiohttp.ClientError as error:
            raise NotAnsweredError(f"no picture ({type(error).__name__})") from error
        answer.close(0.0)
        if answer.content is None or answer.problem is not None:
            raise NotAnsweredError(answer.problem or "no picture")
        return answer.content

    async def generates(
        self, session: aiohttp.ClientSession, base_url: str, served_name: str
    ) -> bool:
        """Have the engine make a small image or a short clip in one step; False if it did not."""
        call = self.completion(_small(self._output), served_name)
        url, headers = base_url.rstrip("/") + call.route, {"Content-Type": call.content_type}
        async with reply_to(session, "POST", url, data=call.body, headers=headers) as reply:
            return reply.status == 200 and bool(await body_of(reply))

    async def sample(self, session: aiohttp.ClientSession, base_url: str) -> ServerSample:
        """Read how many requests run and wait. Raises `ServerUnreachableError`."""
        return await scrape(session, base_url)

    async def settings(self, session: aiohttp.ClientSession, base_url: str) -> Flags | None:
        """Return None: it does not say what became of its flags."""
        return None

    async def reset_prefix_cache(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """Return True: nothing of a prompt is kept."""
        return True


def form(fields: Mapping[str, object]) -> tuple[bytes, str]:
    """Return a multipart form and its content type."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    text = "".join([*parts, f"--{boundary}--\r\n"])
    return text.encode(), f"multipart/form-data; boundary={boundary}"


def _generation(request: Request) -> GenerationRequest:
    if not isinstance(request, GenerationRequest):
        raise NotAnsweredError("vLLM-Omni is asked for images and videos only, not for text")
    return request


def _small(output: Output) -> GenerationRequest:
    is_video = output is Output.VIDEO
    return GenerationRequest(
        request_id=0,
        arrival_s=0.0,
        prompt_token_ids=np.zeros(1, dtype=np.int32),
        output_tokens=1,
        prompt="a boat",
        height=256,
        width=256,
        steps=1,
        seed=0,
        frames=5 if is_video else 1,
        fps=8.0 if is_video else None,
    )
