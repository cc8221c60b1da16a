"""Ray cluster: join one, and see what it has room for.

Ray executes what it is sent and listens on all interfaces, so a cluster without token
authentication is refused (`docs/cards.md`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tuner.errors import PreflightError
from tuner.evaluation.remote.ray_head import RayHead, longer_patience

if TYPE_CHECKING:
    from types import ModuleType

T = TypeVar("T")

NAMESPACE = "tuner"  # of the names of actors


def connect(address: str) -> RayHead:
    """Join the cluster at an address, and return its head.

    Raises `PreflightError` where that is not possible.
    """
    with longer_patience() as patience_s:
        ray = imported_ray()
        if os.environ.get("RAY_AUTH_MODE") != "token":
            raise PreflightError(
                "--ray needs a cluster with token authentication, since whoever reaches its ports "
                "can run programs on it: set RAY_AUTH_MODE=token on every node and here, with the "
                "token in RAY_AUTH_TOKEN or ~/.ray/auth_token (`ray get-auth-token --generate`)"
            )
        if not ray.is_initialized():
            _join(ray, address)
    return RayHead(ray.get_runtime_context().gcs_address, patience_s)


def _join(ray: ModuleType, address: str) -> None:
    _keep_stdout(ray)
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
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
    nodes = [node["Resources"] for node in imported_ray().nodes() if node["Alive"]]
    gpus = [int(resources.get("GPU", 0)) for resources in nodes]
    if gpus_each > max(gpus, default=0):
        raise PreflightError(
            f"no node of the Ray cluster has {gpus_each} GPUs (the most is {max(gpus, default=0)}):"
            " a server's GPUs have to be on one node, tensor or pipeline parallelism over several "
            "nodes is not built yet"
        )
    return sum(count // gpus_each for count in gpus)


def free_gpus() -> int:
    """Return how many GPUs of the cluster nobody uses."""
    return int(imported_ray().available_resources().get("GPU", 0))


def actor_names() -> set[str]:
    """Return the names of this tuner's actors on the cluster, of all studies."""
    return set(imported_ray().util.list_named_actors())


def asked(question: Callable[[], T]) -> asyncio.Future[T]:
    """Ask Ray in a thread that nobody has to wait for: without a head it answers after minutes."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def give(value: T | None, error: BaseException | None) -> None:
        if answer.cancelled():
            return
        if error is None:
            answer.set_result(value)  # type: ignore[arg-type]  # T may be None
        else:
            answer.set_exception(error)

    def ask() -> None:
        value, failed = None, None
        try:
            value = question()
        except Exception as error:  # noqa: BLE001 - whoever awaits the answer gets it
            failed = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(give, value, failed)

    threading.Thread(target=ask, name="question to Ray", daemon=True).start()
    return answer


def imported_ray() -> ModuleType:
    """Return Ray; raises `PreflightError` where it is not installed."""
    try:
        import ray
        import ray.exceptions
        import ray.util
    except ImportError:
        raise PreflightError(
            "--ray needs Ray, which is not installed: pip install 'ray>=2.60'"
        ) from None
    module: ModuleType = ray
    return module
