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
from tuner.evaluation.evaluator import BenchLostError, Evaluator, MeasurementPlan, Testbed
from tuner.evaluation.factory import Knobs, RunContext, make_evaluator
from tuner.evaluation.remote.local_process import LocalProcess
from tuner.evaluation.remote.protocol import BenchOrder, Carrier, LeftOver
from tuner.evaluation.remote.ray_carrier import RayCarrier, connect, room_for
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator
from tuner.evaluation.supervision import supervised
from tuner.spec.study import StudySpec
from tuner.study.workers.cards import Card, cards_of, ray_cards
from tuner.study.workers.fleet import MOST_LOSSES

_CORES = 2  # of a bench: one for the client, one for the server's own


@dataclass(frozen=True, slots=True)
class Bench:
    """An evaluator, and the name of its card in a study on several."""

    evaluator: Evaluator
    card: str | None = None


@asynccontextmanager
async def opened_benches(
    study: str, spec: StudySpec, plan: MeasurementPlan, knobs: Knobs, context: RunContext
) -> AsyncIterator[list[Bench]]:
    """Open the benches of a spec; at the end everything that they started is stopped.

    Raises `UsageError` or `PreflightError` as `make_evaluator`, and where there are fewer cards.
    """
    if not spec.has_cards:
        # it may take a minute to ask vLLM for its flags
        evaluator = await asyncio.to_thread(make_evaluator, spec, plan, knobs, context)
        async with supervised(evaluator, context):
            yield [Bench(evaluator)]
        return
    if spec.ray is not None:
        await asyncio.to_thread(connect, spec.ray)
        cards = ray_cards(spec, room_for(spec.gpus or 1))
    else:
        cards = await asyncio.to_thread(cards_of, spec)
        if not spec.is_real_time:
            yield [_virtual(spec, card, plan, knobs, context) for card in cards]
            return
    async with AsyncExitStack() as stack:
        benches = []
        for number, card in enumerate(cards):
            order = BenchOrder(
                spec=_of_card(spec, card),
                plan=plan,
                knobs=knobs,
                run_tag=f"{context.run_tag}-{number}",
                log_folder=context.log_folder / f"card-{number}",
                access=context.access,
                gpu_uuids=card.uuids,
                cores=frozenset() if spec.ray else _cores(number, len(cards)),
            )
            carrier: Carrier
            if spec.ray is None:
                carrier = LocalProcess(order, context.listener, card.name)
            else:
                gpus = spec.gpus or 1
                carrier = RayCarrier(order, context.listener, study, card.name, gpus=gpus)
            stack.push_async_callback(carrier.close)
            benches.append(Bench(RemoteEvaluator(carrier), card.name))
        if spec.ray is None and not _cores(0, len(cards)):
            context.listener.note(
                f"{len(cards)} cards share the {len(os.sched_getaffinity(0))} CPU cores of this "
                "host: windows whose client is late are discarded"
            )
        yield benches


def _of_card(spec: StudySpec, card: Card) -> StudySpec:
    """Return the spec of a study on this card alone."""
    emulate = None if spec.emulate is None else card.name
    return spec.model_copy(update={"emulate": emulate, "cards": None, "ray": None})


def _cores(number: int, count: int) -> frozenset[int]:
    """Return the cores of a bench, neighbours on the host; none if there are not enough."""
    cores = sorted(os.sched_getaffinity(0))
    each = len(cores) // count
    return frozenset(cores[number * each : (number + 1) * each] if each >= _CORES else ())


def _virtual(
    spec: StudySpec, card: Card, plan: MeasurementPlan, knobs: Knobs, context: RunContext
) -> Bench:
    """Return a bench on the virtual clock, which needs no process of its own."""
    return Bench(make_evaluator(_of_card(spec, card), plan, knobs, context), card.name)


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
    common = [
        dataclasses.replace(testbed, gpu=_kind(bench, testbed), gpu_uuids=())
        for bench, testbed in zip(benches, testbeds, strict=True)
    ]
    named = [
        Bench(bench.evaluator, "+".join(testbed.gpu_uuids) or bench.card)
        for bench, testbed in zip(benches, testbeds, strict=True)
    ]
    for bench, one in zip(named, common, strict=True):
        if one != common[0]:
            raise PreflightError(
                f"card {bench.card} has {one.gpu}, driver {one.driver}, server "
                f"{one.server_version}; card {named[0].card} has {common[0].gpu}, driver "
                f"{common[0].driver}, server {common[0].server_version}: one study needs cards of "
                "one kind; choose them with CUDA_VISIBLE_DEVICES"
            )
    return common[0], named


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
