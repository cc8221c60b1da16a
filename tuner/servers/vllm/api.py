"""vLLM's HTTP API: OpenAI's, with routes of its own for health, counters and the prefix cache."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from tuner.servers.openai.api import OpenAiApi, get_json
from tuner.servers.openai.replies import body_of, reply_to
from tuner.servers.server import Flags, ServerSample, ServerUnreachableError
from tuner.servers.vllm.counters import resolved_settings, scrape


class VllmApi(OpenAiApi):
    """A vLLM, of which some routes may be closed or hidden behind a proxy."""

    async def is_ready(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """Say whether `/health` answers: vLLM opens its port before it has loaded the model."""
        try:
            async with reply_to(session, "GET", f"{base_url}/health") as reply:
                return reply.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def version(self, session: aiohttp.ClientSession, base_url: str) -> str | None:
        """Return the version that the server reports; None if it does not."""
        try:
            version = (await get_json(session, f"{base_url}/version")).get("version")
        except ServerUnreachableError:
            return None
        return None if version is None else str(version)

    async def sample(self, session: aiohttp.ClientSession, base_url: str) -> ServerSample:
        """Read the counters. Raises `ServerUnreachableError`."""
        return await scrape(session, base_url)

    async def settings(self, session: aiohttp.ClientSession, base_url: str) -> Flags | None:
        """Return what vLLM made of its flags and its defaults; None if it does not say.

        Raises `ServerUnreachableError`.
        """
        return await resolved_settings(session, base_url)

    async def sleep(self, session: aiohttp.ClientSession, base_url: str, level: int) -> bool:
        """Free the GPUs' memory; needs `--enable-sleep-mode` and `VLLM_SERVER_DEV_MODE=1`."""
        return await _posted(session, f"{base_url}/sleep?level={level}")

    async def wake(self, session: aiohttp.ClientSession, base_url: str, level: int) -> bool:
        """Wake it; of level 2 the weights are read again, in place, before there is a KV cache."""
        if level == 1:
            return await _posted(session, f"{base_url}/wake_up")
        return (
            await _posted(session, f"{base_url}/wake_up?tags=weights")
            and await _posted(session, f"{base_url}/collective_rpc", {"method": "reload_weights"})
            and await _posted(session, f"{base_url}/wake_up?tags=kv_cache")
        )

    async def reset_prefix_cache(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """Empty the prefix cache; False if that failed, or there is no such route.

        Newer vLLMs say whether it worked, which it does not while requests hold blocks.
        """
        async with reply_to(session, "POST", f"{base_url}/reset_prefix_cache") as reply:
            if reply.status != 200:
                return False
            answer = await body_of(reply)
            return not answer or b"false" not in answer.lower()


async def _posted(
    session: aiohttp.ClientSession, url: str, body: Mapping[str, object] | None = None
) -> bool:
    """Post and say whether it was accepted."""
    async with reply_to(session, "POST", url, json=body) as reply:
        await body_of(reply)
        return reply.status == 200
