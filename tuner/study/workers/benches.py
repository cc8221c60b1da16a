"""Benches of a study: open an evaluator for each card that the spec asks for.

A bench is a set of GPUs with an evaluator of its own. A study has one on all GPUs that a server may
use, or with `--cards` one for each card.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tuner.configuration import Value
from tuner.errors import PreflightError, TunerError
from tuner.evaluation.evaluator import BenchLostError, MeasurementPlan, Testbed
from tuner.evaluation.factory import Knobs, RunContext, make_evaluator
from tuner.evaluation.remote.local_process import LocalProcess
from tuner.evaluation.remote.protocol import LeftOver
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator
from tuner.evaluation.supervision import supervised
from tuner.spec.study import StudySpec
from tuner.study.workers.bench import Bench, Orders, cores_of, spec_of_card
from tuner.study.workers.cards import Card, cards_of
from tuner.study.workers.fleet import MOST_LOSSES
from tuner.study.workers.ray_benches import RayBenches


@dataclass(frozen=True, slots=True)
class OpenedBenches:
    """The benches of a run, and where further ones may come from."""

    benches: list[Bench]
    cluster: RayBenches | None = None

    @property
    def can_grow(self) -> bool:
        """Whether further ones may join."""
        return self.cluster is not None

    async def joined(self, common: Testbed, note: Callable[[str], None]) -> list[Bench]:
        """Return further benches that can be used beside those with a testbed in common."""
        if self.cluster is None:
            return []
        new, found = await self.cluster.joined(), []
        unused = dict.fromkeys(new, False)  # and whether it is refused
        try:
            testbeds = await asyncio.gather(*(_prepared_once(bench) for bench in new))
            for bench, testbed in zip(new, testbeds, strict=True):
                if testbed is None:
                    continue
                if (its := _in_common(bench, testbed)) == common:
                    del unused[bench]
                    found.append(_named(bench, testbed))
                else:
                    unused[bench] = True
                    note(_unlike(_named(bench, testbed), its, common))
            return found
        finally:
            for bench, is_refused in unused.items():
                await bench.evaluator.close()
                self.cluster.forget(bench, is_refused=is_refused)


@asynccontextmanager
async def opened_benches(
    study: str, spec: StudySpec, plan: MeasurementPlan, knobs: Knobs, context: RunContext
) -> AsyncIterator[OpenedBenches]:
    """Open the benches of a spec; at the end everything that they started is stopped.

    Raises `UsageError` or `PreflightError` as `make_evaluator`, and where there are fewer cards.
    """
    if not spec.has_cards:
        # it may take a minute to ask vLLM for its flags
        evaluator = await asyncio.to_thread(make_evaluator, spec, plan, knobs, context)
        async with supervised(evaluator, context):
            yield OpenedBenches([Bench(evaluator)])
        return
    orders = Orders(spec, plan, knobs, context)
    async with AsyncExitStack() as stack:
        if spec.ray is not None:
            cluster = RayBenches(study, orders, spec.ray, stack)
            yield OpenedBenches(await cluster.opened(), cluster)
            return
        cards = await asyncio.to_thread(cards_of, spec)
        if not spec.is_real_time:
            yield OpenedBenches([_virtual(orders, card) for card in cards])
            return
        if not cores_of(0, len(cards)):
            context.listener.note(
                f"{len(cards)} cards share the {len(os.sched_getaffinity(0))} CPU cores of this "
                "host: windows whose client is late are discarded"
            )
        yield OpenedBenches(_local(orders, cards, stack))


def _virtual(orders: Orders, card: Card) -> Bench:
    """Return a bench on the virtual clock, which needs no process of its own."""
    spec = spec_of_card(orders.spec, card)
    return Bench(make_evaluator(spec, orders.plan, orders.knobs, orders.context), card.name)


def _local(orders: Orders, cards: Sequence[Card], stack: AsyncExitStack) -> list[Bench]:
    """Return a bench in a process of its own for each card."""
    benches = []
    for number, card in enumerate(cards):
        order = orders.of(card, number, cores_of(number, len(cards)))
        carrier = LocalProcess(order, orders.context.listener, card.name)
        stack.push_async_callback(carrier.close)
        benches.append(Bench(RemoteEvaluator(carrier), card.name))
    return benches


async def left_over_of(benches: Sequence[Bench]) -> list[LeftOver]:
    """Return what benches of this study's killed driver measured, once they are done with it."""
    remote = [b.evaluator for b in benches if isinstance(b.evaluator, RemoteEvaluator)]
    found = await asyncio.gather(*(evaluator.left_over() for evaluator in remote))
    return [one for one in found if one is not None]


async def prepared(
    opened: Sequence[Bench], note: Callable[[str], None]
) -> tuple[Testbed, list[Bench]]:
    """Prepare every bench; return what they have in common, and each with its card's own name.

    One that is lost is left out. Raises `PreflightError` if all are, or if a study could not
    compare what they measure.
    """
    found = await asyncio.gather(*(_prepared(bench, note) for bench in opened))
    benches = [bench for bench, one in zip(opened, found, strict=True) if one is not None]
    testbeds = [one for one in found if one is not None]
    if not benches:
        raise PreflightError("no card can be used; what is wrong with each is said above")
    if benches[0].card is None:
        return testbeds[0], benches
    common = [_in_common(b, testbed) for b, testbed in zip(benches, testbeds, strict=True)]
    named = [_named(b, testbed) for b, testbed in zip(benches, testbeds, strict=True)]
    for bench, one in zip(named, common, strict=True):
        if one != common[0]:
            raise PreflightError(
                f"{_unlike(bench, one, common[0])}; choose them with CUDA_VISIBLE_DEVICES"
            )
    return common[0], named


def _in_common(bench: Bench, testbed: Testbed) -> Testbed:
    """Return what the benches of one study have to have in common."""
    return dataclasses.replace(testbed, gpu=_kind(bench, testbed), gpu_uuids=())


def _named(bench: Bench, testbed: Testbed) -> Bench:
    """Return the bench under its card's own name."""
    return Bench(bench.evaluator, "+".join(testbed.gpu_uuids) or bench.card)


def _unlike(bench: Bench, its: Testbed, theirs: Testbed) -> str:
    return (
        f"card {bench.card} has {its.gpu}, driver {its.driver}, server {its.server_version}; the "
        f"others have {theirs.gpu}, driver {theirs.driver}, server {theirs.server_version}: one "
        "study needs cards of one kind"
    )


async def defaults_of(benches: Sequence[Bench], note: Callable[[str], None]) -> Mapping[str, Value]:
    """Start the default configuration on every card at once; return the first one's values.

    The servers stay warm for the measurement of the default on each card. What another card cannot
    do is told, and its measurement fails. Raises what the first card's evaluator raises.
    """
    found = await asyncio.gather(
        *(bench.evaluator.defaults() for bench in benches), return_exceptions=True
    )
    for bench, one in zip(benches[1:], found[1:], strict=True):
        if isinstance(one, TunerError):
            note(f"the default does not start on card {bench.card}: {one}")
        elif isinstance(one, BaseException):
            raise one
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


async def _prepared_once(bench: Bench) -> Testbed | None:
    try:
        return await bench.evaluator.prepare()
    except TunerError:  # it is looked for again
        return None


async def _prepared(bench: Bench, note: Callable[[str], None]) -> Testbed | None:
    lost: BenchLostError | None = None
    for _ in range(MOST_LOSSES):
        try:
            return await bench.evaluator.prepare()
        except BenchLostError as error:
            lost = error
    note(f"card {bench.card} is left out: {lost}")
    return None


def _kind(bench: Bench, testbed: Testbed) -> str:
    """Return the model of a card; an emulated one has its number in its name."""
    is_numbered = testbed.gpu == bench.card
    return testbed.gpu.rpartition(":")[0] if is_numbered else testbed.gpu
