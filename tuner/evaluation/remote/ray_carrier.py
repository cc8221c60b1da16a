"""Ray carrier: a bench as a detached actor of a Ray cluster.

An actor is placed on one node with as many GPUs as a server may use. It lives past its driver; the
next driver of the study finds it by its name. Ray executes what it is sent and listens on all
interfaces, so a cluster without token authentication is refused (`docs/cards.md`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tuner.errors import PreflightError, TunerError
from tuner.evaluation.evaluator import BenchLostError
from tuner.evaluation.remote.protocol import BenchOrder, LeftOver, Method, Reply
from tuner.evaluation.remote.ray_actor import Facts, News, RayBench
from tuner.measurement.listener import LoadListener

if TYPE_CHECKING:
    from types import ModuleType

_NAMESPACE = "tuner"
CORES = 2  # of a bench, for the client and the server's own; a virtual one needs none
_OPEN_S = 120.0  # for the cluster to place an actor and start its process
_OPEN_TRIES = 5
_AGAIN_S = 1.0  # between them
_CLOSE_S = 60.0
_NEWS_S = 2.0
# A worker of Ray that ends kills its children, and the guardian has to outlive it. It also runs
# after every other process of the host (nice 15) with its servers, and its client would be late.
_ENVIRONMENT = {"RAY_kill_child_processes_on_worker_exit": "0", "RAY_worker_niceness": "0"}


def connect(address: str) -> None:
    """Join the cluster at an address; raises `PreflightError` where that is not possible."""
    ray = _ray()
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise PreflightError(
            "--ray needs a cluster with token authentication, since whoever reaches its ports can "
            "run programs on it: set RAY_AUTH_MODE=token on every node and here, with the token "
            "in RAY_AUTH_TOKEN or ~/.ray/auth_token (`ray get-auth-token --generate`)"
        )
    if not ray.is_initialized():
        _keep_stdout(ray)
        try:
            ray.init(
                address=address,
                namespace=_NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            raise PreflightError(
                f"cannot join the Ray cluster at {address} ({''.join(first)}); see that it runs, "
                "that its port can be reached, and that its token is this one"
            ) from error


def _keep_stdout(ray: ModuleType) -> None:
    """Keep Ray from printing its nodes' errors to stdout, which is for results.

    It does, with `log_to_driver=False` too, and has no option for it; a lost bench is told anyway.
    """
    ray._private.worker.print_to_stdstream = lambda *_, **__: None


def room_for(gpus_each: int) -> int:
    """Return how many benches of so many GPUs the nodes of the cluster have room for.

    Raises `PreflightError` where one needs more GPUs than any node has.
    """
    nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
    gpus = [int(resources.get("GPU", 0)) for resources in nodes]
    if gpus_each > max(gpus, default=0):
        raise PreflightError(
            f"no node of the Ray cluster has {gpus_each} GPUs (the most is {max(gpus, default=0)}):"
            " a server's GPUs have to be on one node, tensor or pipeline parallelism over several "
            "nodes is not built yet"
        )
    return sum(count // gpus_each for count in gpus)


class RayCarrier:
    """Keeps one actor; `name` is that of the bench within its study and is put before its notes."""

    def __init__(
        self, order: BenchOrder, listener: LoadListener, study: str, name: str, *, gpus: int
    ) -> None:
        self._order = order
        self._listener = listener
        self._name = name
        # studies of one name in other stores have other folders
        folder = hashlib.sha256(str(order.log_folder).encode()).hexdigest()[:12]
        self._actor_name = f"{study}/{name}/{folder}"
        self._gpus = gpus
        self._actor: Any = None
        self._news: asyncio.Task[None] | None = None
        self.facts: Facts | None = None

    async def left_over(self) -> LeftOver | None:
        """Return what the bench of an earlier driver has measured for it; see `Carrier`."""
        ray = _ray()
        try:
            actor = ray.get_actor(self._actor_name, namespace=_NAMESPACE)
        except ValueError:
            return None
        try:
            if not await self._greet(actor):
                return None
            found: LeftOver | None = await actor.left_over.remote()
        except (ray.exceptions.RayError, BenchLostError):
            return None
        return found

    async def call(self, method: Method, *arguments: Any) -> Reply:
        """Run a method there; see `Carrier`."""
        ray = _ray()
        if self._actor is None:
            await self._open()
        pending = asyncio.ensure_future(_awaited(self._actor.call.remote(method, arguments)))
        try:
            reply: Reply | TunerError = await asyncio.shield(pending)
        except asyncio.CancelledError:
            with suppress(ray.exceptions.RayError):
                await self._actor.cancel.remote()
                await asyncio.wait([pending])
                pending.exception()
            raise
        except ray.exceptions.RayError as error:
            await self._give_up()
            raise BenchLostError(f"{_reason(error)} of {self._actor_name}") from error
        if isinstance(reply, TunerError):
            raise reply
        return reply

    async def close(self) -> None:
        """Stop it; see `Carrier`."""
        ray, actor = _ray(), self._actor
        if actor is None:
            return
        with suppress(ray.exceptions.RayError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await actor.close.remote()
        await self._give_up()

    async def _open(self) -> None:
        """Place the actor, or take the one that an earlier driver left.

        The name of an actor that was just killed may be taken for a moment, or lead to it.
        """
        errors = _ray().exceptions
        for _ in range(_OPEN_TRIES):
            try:
                if await self._greet(self._placed()):
                    return
                failed = "it was left by another study"
            except (errors.RayActorError, ValueError) as error:
                failed = _reason(error)
            except errors.RayError as error:
                raise BenchLostError(f"{_reason(error)} of {self._actor_name}") from error
            await asyncio.sleep(_AGAIN_S)
        raise BenchLostError(f"{self._actor_name} cannot be opened: {failed}")

    def _placed(self) -> Any:
        """Return the actor of this name, a new one if there is none.

        Raises `ValueError` while one of this name comes or goes.
        """
        ray = _ray()
        return (
            ray.remote(RayBench)
            .options(
                name=self._actor_name,
                namespace=_NAMESPACE,
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
                self.facts = await actor.facts.remote()
        except asyncio.CancelledError:
            if self._actor is None:
                _kill(actor)  # it may not even have a place
            raise
        except TimeoutError:
            _kill(actor)
            raise BenchLostError(
                f"no node had {self._gpus} GPUs and {CORES} CPU cores free within {_OPEN_S:.0f} s"
            ) from None
        if not self.facts.needs_token:
            _kill(actor)
            raise PreflightError(
                "the Ray cluster runs without token authentication: whoever reaches its ports can "
                "run programs on it; start every node with RAY_AUTH_MODE=token"
            )
        if self.facts.identity != self._order.identity:
            _kill(actor)  # its guardian stops what it left
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
        _kill(self._actor)
        self._actor = None

    async def _fetch_news(self) -> None:
        ray = _ray()
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


def _kill(actor: Any) -> None:
    """End an actor, if it can be reached; it ends by itself where it has no driver."""
    ray = _ray()
    with suppress(ray.exceptions.RayError, ValueError):
        ray.kill(actor)


async def _awaited(reference: Any) -> Any:
    return await reference


def _ray() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise PreflightError(
            "--ray needs Ray, which is not installed: pip install 'ray>=2.60'"
        ) from None
    module: ModuleType = ray
    return module
