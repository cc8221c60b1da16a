"""Ray benches: one for each set of GPUs on a cluster's nodes, also on nodes that join later."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack

from tuner.errors import PreflightError, UsageError
from tuner.evaluation.remote.ray_carrier import RayCarrier, actor_name
from tuner.evaluation.remote.ray_cluster import actor_names, asked, connect, free_gpus, room_for
from tuner.evaluation.remote.ray_head import RayHead
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator
from tuner.study.workers.bench import Bench, Orders
from tuner.study.workers.cards import Card


class RayBenches:
    """The benches of a run on a cluster; `stack` closes them."""

    def __init__(self, study: str, orders: Orders, address: str, stack: AsyncExitStack) -> None:
        self._study = study
        self._orders = orders
        self._address = address
        self._stack = stack
        self._head: RayHead | None = None
        self._carriers: dict[int, RayCarrier] = {}
        self._refused = 0

    @property
    def _each(self) -> int:
        """GPUs of a bench."""
        return self._orders.spec.gpus or 1

    async def opened(self) -> list[Bench]:
        """Join the cluster; return a bench for each set of GPUs that `--cards` asks for.

        Those whose actors an earlier driver left are among them. Raises `UsageError` where there
        are fewer, `PreflightError` where the cluster cannot be used.
        """
        self._head = await asyncio.to_thread(connect, self._address)
        there = await asyncio.to_thread(room_for, self._each)
        wanted = self._wanted(there)
        if wanted > there:
            raise UsageError(
                f"--cards {wanted}: the Ray cluster has room for {there} workers of "
                f"{self._each} GPUs"
            )
        left = self._left_by_a_driver(await asyncio.to_thread(actor_names))
        others = (number for number in itertools.count() if number not in left)
        numbers = [*left, *itertools.islice(others, max(wanted - len(left), 0))][:wanted]
        return [self._bench(number) for number in sorted(numbers)]

    async def joined(self) -> list[Bench]:
        """Return benches for GPUs that nobody uses, mostly those of a node that is new."""
        assert self._head is not None
        places = await self._head.while_reached(asked(self._free_places))
        first = max(self._carriers) + 1
        return [self._bench(first + k) for k in range(places)]

    def forget(self, bench: Bench, *, is_refused: bool) -> None:
        """Count a bench that joined no more; a refused one keeps its place from being tried."""
        self._refused += is_refused
        number = next(n for n in self._carriers if self._card(n).name == bench.card)
        del self._carriers[number]

    def _wanted(self, there: int) -> int:
        cards = self._orders.spec.cards
        return there if cards in (None, "all") else int(cards or 0)

    def _free_places(self) -> int:
        """Return how many more benches can be opened now.

        An emulated card that was lost comes back as itself, on any GPU; a real one is known by its
        GPU.
        """
        try:
            there = room_for(self._each)
        except PreflightError:  # no node has a GPU at present
            return 0
        is_emulated = self._orders.spec.emulate is not None
        taken = sum(is_emulated or carrier.has_place for carrier in self._carriers.values())
        wanted = min(self._wanted(there), there) - taken - self._refused
        return max(0, min(wanted, free_gpus() // self._each))

    def _left_by_a_driver(self, names: set[str]) -> list[int]:
        """Return the numbers of benches of this study that have an actor."""
        stem = f"{self._study}/{self._card_stem}:"
        words = [name[len(stem) :].partition("/")[0] for name in names if name.startswith(stem)]
        numbers = sorted({int(word) for word in words if word.isdecimal()})
        return [number for number in numbers if self._actor_name(number) in names]

    def _actor_name(self, number: int) -> str:
        card = self._card(number)
        return actor_name(self._study, card.name, self._orders.of(card, number))

    @property
    def _card_stem(self) -> str:
        return self._orders.spec.emulate or "card"

    def _card(self, number: int) -> Card:
        """Return a card; a real GPU has its own name once its worker has said which it is."""
        return Card(f"{self._card_stem}:{number}")

    def _bench(self, number: int) -> Bench:
        assert self._head is not None
        card = self._card(number)
        carrier = RayCarrier(
            self._orders.of(card, number),
            self._orders.context.listener,
            self._study,
            card.name,
            self._head,
            gpus=self._each,
        )
        self._carriers[number] = carrier
        self._stack.push_async_callback(carrier.close)
        return Bench(RemoteEvaluator(carrier), card.name)
