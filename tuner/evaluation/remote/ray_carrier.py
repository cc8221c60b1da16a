"""Ray carrier: a bench as a detached actor of a Ray cluster.

An actor is placed on one node with as many GPUs as a server may use. It lives past its driver; the
next driver of the study finds it by its name. What is asked of Ray is waited for while its head can
be reached (`ray_head.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from functools import partial
from typing import Any

from tuner.errors import OperatorNeededError, PreflightError, TunerError
from tuner.evaluation.evaluator import BenchLostError
from tuner.evaluation.remote.protocol import BenchOrder, LeftOver, Method, Reply
from tuner.evaluation.remote.ray_actor import Facts, News, RayBench
from tuner.evaluation.remote.ray_cluster import NAMESPACE, asked, imported_ray
from tuner.evaluation.remote.ray_head import RayHead
from tuner.measurement.listener import LoadListener

CORES = 2  # of a bench, for the client and the server's own; a virtual one needs none
_OPEN_S = 120.0  # for the cluster to place an actor and start its process
_OPEN_TRIES = 5
_AGAIN_S = 1.0  # between them
_CLOSE_S = 60.0
_KILL_S = 10.0
_NEWS_S = 2.0
# A worker of Ray that ends kills its children, and the guardian has to outlive it. It also runs
# after every other process of the host (nice 15) with its servers, and its client would be late.
_ENVIRONMENT = {"RAY_kill_child_processes_on_worker_exit": "0", "RAY_worker_niceness": "0"}


class RayCarrier:
    """Keeps one actor; `name` is that of the bench within its study and is put before its notes."""

    def __init__(
        self,
        order: BenchOrder,
        listener: LoadListener,
        study: str,
        name: str,
        head: RayHead,
        *,
        gpus: int,
    ) -> None:
        self._order = order
        self._head = head
        self._listener = listener
        self._name = name
        self._actor_name = actor_name(study, name, order)
        self._gpus = gpus
        self._actor: Any = None
        self._news: asyncio.Task[None] | None = None
        self.facts: Facts | None = None

    @property
    def has_place(self) -> bool:
        """Whether an actor of it is on a node."""
        return self._actor is not None

    async def left_over(self) -> LeftOver | None:
        """Return what the bench of an earlier driver has measured for it; see `Carrier`."""
        ray = imported_ray()
        try:
            actor = await self._head.while_reached(asked(self._found))
        except ValueError:
            return None
        try:
            if not await self._greet(actor):
                return None
            found: LeftOver | None = await self._answer(actor.left_over.remote())
        except (ray.exceptions.RayError, BenchLostError):
            return None
        return found

    async def call(self, method: Method, *arguments: Any) -> Reply:
        """Run a method there; see `Carrier`."""
        ray = imported_ray()
        if self._actor is None:
            await self._open()
        pending = asyncio.ensure_future(_awaited(self._actor.call.remote(method, arguments)))
        try:
            reply: Reply | TunerError = await self._head.while_reached(pending)
        except asyncio.CancelledError:
            with suppress(ray.exceptions.RayError, OperatorNeededError):
                await self._answer(self._actor.cancel.remote())
                await asyncio.wait([pending])
                pending.exception()
            raise
        except ray.exceptions.RayError as error:
            await self._give_up()
            raise BenchLostError(f"{_reason(error)} of {self._actor_name}") from error
        finally:
            pending.cancel()
        if isinstance(reply, TunerError):
            raise reply
        return reply

    async def close(self) -> None:
        """Stop it; see `Carrier`."""
        ray, actor = imported_ray(), self._actor
        if actor is None:
            return
        with suppress(ray.exceptions.RayError, TimeoutError, OperatorNeededError):
            async with asyncio.timeout(_CLOSE_S):
                await self._answer(actor.close.remote())
        await self._give_up()

    async def _open(self) -> None:
        """Place the actor, or take the one that an earlier driver left.

        The name of an actor that was just killed may be taken for a moment, or lead to it.
        """
        errors = imported_ray().exceptions
        for _ in range(_OPEN_TRIES):
            try:
                if await self._greet(await self._new_or_left()):
                    return
                failed = "it was left by another study"
            except (errors.RayActorError, ValueError) as error:
                failed = _reason(error)
            except errors.RayError as error:
                raise BenchLostError(f"{_reason(error)} of {self._actor_name}") from error
            await asyncio.sleep(_AGAIN_S)
        raise BenchLostError(f"{self._actor_name} cannot be opened: {failed}")

    async def _new_or_left(self) -> Any:
        """Return the actor, which may not have a place yet; raises `BenchLostError` after a while.

        Ray gives its own question no deadline, which it asks of an actor of this name that dies.
        """
        placed = asked(self._placed)
        try:
            async with asyncio.timeout(_OPEN_S):
                return await self._head.while_reached(placed)
        except asyncio.CancelledError:
            placed.add_done_callback(_kill_when_placed)
            raise
        except TimeoutError:
            placed.add_done_callback(_kill_when_placed)
            raise BenchLostError(f"Ray did not place an actor within {_OPEN_S:.0f} s") from None

    def _found(self) -> Any:
        """Return the actor that an earlier driver left; raises `ValueError` where there is none."""
        return imported_ray().get_actor(self._actor_name, namespace=NAMESPACE)

    async def _answer(self, reference: Any) -> Any:
        """Return what the actor answers, however long it takes; raises as `while_reached`."""
        pending = asyncio.ensure_future(_awaited(reference))
        try:
            return await self._head.while_reached(pending)
        finally:
            pending.cancel()

    def _placed(self) -> Any:
        """Return the actor of this name, a new one if there is none.

        Raises `ValueError` while one of this name comes or goes.
        """
        ray = imported_ray()
        return (
            ray.remote(RayBench)
            .options(
                name=self._actor_name,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_gpus=self._gpus,
                num_cpus=CORES if self._order.spec.is_real_time else 0,
                max_concurrency=8,
                runtime_env={"env_vars": _ENVIRONMENT},
            )
            .remote(self._order)
        )

    async def _greet(self, actor: Any) -> bool:
        """Take the actor if it was opened for this study, else end it; say which.

        Raises `BenchLostError` if it does not answer, mostly because it found no place.
        """
        try:
            async with asyncio.timeout(_OPEN_S):
                self.facts = await self._answer(actor.facts.remote())
        except asyncio.CancelledError:
            if self._actor is None:
                await _killed(actor)  # it may not even have a place
            raise
        except TimeoutError:
            await _killed(actor)
            raise BenchLostError(
                f"no node had {self._gpus} GPUs and {CORES} CPU cores free within {_OPEN_S:.0f} s"
            ) from None
        if not self.facts.needs_token:
            await _killed(actor)
            raise PreflightError(
                "the Ray cluster runs without token authentication: whoever reaches its ports can "
                "run programs on it; start every node with RAY_AUTH_MODE=token"
            )
        if self.facts.identity != self._order.identity:
            await _killed(actor)  # its guardian stops what it left
            return False
        self._actor = actor
        if self._news is None:
            self._news = asyncio.create_task(self._fetch_news())
        return True

    async def _give_up(self) -> None:
        """Leave the actor: it is gone, or out of reach and then ends by itself."""
        if self._news is not None:
            self._news.cancel()
            await asyncio.wait([self._news])
            self._news = None
        actor, self._actor = self._actor, None
        if not self._head.is_lost:  # it may keep what it measures for the next driver
            await _killed(actor)

    async def _fetch_news(self) -> None:
        ray = imported_ray()
        with suppress(ray.exceptions.RayError):  # the call that runs tells of it
            while True:
                news: News = await self._actor.news.remote()
                for note in news.notes:
                    self._listener.note(f"card {self._name}: {note}")
                if news.snapshot is not None:
                    self._listener.load_sampled(news.snapshot)
                await asyncio.sleep(_NEWS_S)


def _reason(error: Exception) -> str:
    """Return what ended a bench: an error of its own, such as a full disk of its node, or Ray's."""
    cause = getattr(error, "cause", None)
    return type(error).__name__ if cause is None else f"{type(cause).__name__} ({cause})"


def actor_name(study: str, bench: str, order: BenchOrder) -> str:
    """Return the name of a bench's actor; studies of one name in other stores have other ones."""
    folder = hashlib.sha256(str(order.log_folder).encode()).hexdigest()[:12]
    return f"{study}/{bench}/{folder}"


def _kill_when_placed(placed: asyncio.Future[Any]) -> None:
    if not placed.cancelled() and placed.exception() is None:
        _kill(placed.result())


async def _killed(actor: Any) -> None:
    """End an actor; other benches go on meanwhile, for which Ray would let nothing run."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_KILL_S):
            await asked(partial(_kill, actor))


def _kill(actor: Any) -> None:
    """End an actor, if it can be reached; it ends by itself where it has no driver."""
    ray = imported_ray()
    with suppress(ray.exceptions.RayError, ValueError):
        ray.kill(actor)


async def _awaited(reference: Any) -> Any:
    return await reference
