"""The requests for images or videos of a workload: seeded, endless, the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from tuner.load.arrivals import ARRIVAL_DECIMALS
from tuner.load.draws import Draws
from tuner.load.generations.generation_spec import GenerationSpec, Size
from tuner.load.generations.prompts import PromptList, drawn_prompt, read_prompts
from tuner.load.lengths import IntArray
from tuner.load.text_request import estimated_tokens, stand_in_ids
from tuner.records import GenerationRequest

_BLOCK_REQUESTS = 64
_MOST_SEED = 2**31


class GenerationStream:
    """Requests whose sizes are drawn by their shares; each has a prompt and noise of its own.

    With stratified draws every block has as many of each size as its share says, rounded.
    """

    def __init__(self, spec: GenerationSpec, seed: int, folder: Path, draws: Draws) -> None:
        self._spec = spec
        self._seed = seed
        self._draws = draws
        self._block_requests = draws.block_requests or _BLOCK_REQUESTS
        shares = np.array([size.share for size in spec.sizes])
        self._shares = shares / shares.sum()
        self.listed: PromptList | None = None
        if spec.prompts is not None:
            self.listed = read_prompts(folder / spec.prompts)
        self.max_request_tokens = 1

    def requests(self) -> Iterator[GenerationRequest]:
        """Return a fresh iterator from the first request; it does not end."""
        start_s = 0.0
        for index in count():
            rng = np.random.default_rng([self._seed, index])
            gaps_s = self._draws.gaps_s("poisson", rng, self._block_requests)
            times_s = np.round(start_s + np.cumsum(gaps_s), ARRIVAL_DECIMALS).tolist()
            first = index * self._block_requests
            for place, size in enumerate(self._sizes(rng)):
                yield self._request(rng, first + place, times_s[place], self._spec.sizes[size])
            start_s = times_s[-1]

    def _request(
        self, rng: np.random.Generator, number: int, arrival_s: float, size: Size
    ) -> GenerationRequest:
        prompt = drawn_prompt(rng)
        if self.listed is not None:
            prompt = self.listed.prompts[number % len(self.listed.prompts)]
        spec = self._spec
        return GenerationRequest(
            request_id=number,
            arrival_s=arrival_s,
            prompt_token_ids=stand_in_ids(estimated_tokens(prompt)),
            output_tokens=1,
            prompt=prompt,
            height=size.height,
            width=size.width,
            steps=spec.steps,
            seed=int(rng.integers(_MOST_SEED)),
            frames=spec.frames or 1,
            fps=spec.fps,
            guidance=spec.guidance,
        )

    def _sizes(self, rng: np.random.Generator) -> IntArray:
        """Return the place of each request's size; shape (block,)."""
        block = self._block_requests
        if self._draws.block_requests is None:
            return rng.choice(self._shares.size, size=block, p=self._shares)
        edges = np.rint(np.concatenate([[0.0], np.cumsum(self._shares)]) * block).astype(np.int64)
        places: IntArray = np.repeat(np.arange(self._shares.size), np.diff(edges))
        return rng.permutation(places)
