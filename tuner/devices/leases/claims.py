"""Claims: one tuner per GPU of this machine, also with different state folders.

A claim is a name in the kernel's table of abstract sockets: it needs no file and no rights, is
seen by every user, and ends with its process. It does not reach beyond a network namespace, so a
tuner in another container is not seen; its processes on the GPU are, by each window's verdict.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import ExitStack

from tuner.errors import PreflightError

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: `struct ucred` of unix(7)


def claim(uuids: Iterable[str]) -> ExitStack:
    """Claim the GPUs until the returned stack is closed, or this process ends.

    Raises `PreflightError` naming the process that has one of them; none is claimed then.
    """
    with ExitStack() as stack:
        for uuid in uuids:
            stack.enter_context(_claimed(uuid))
        return stack.pop_all()
    raise AssertionError("unreachable")


def _claimed(uuid: str) -> socket.socket:
    name = f"\0tuner-gpu-{uuid}"
    mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # not passed on to programs
    try:
        mine.bind(name)
        mine.listen(1)
    except OSError:
        mine.close()
        raise PreflightError(
            f"GPU {uuid} is in use by another tuner ({_holder(name)}), which would change its "
            "limits and share its power; wait for it or end it, or choose other GPUs with "
            "CUDA_VISIBLE_DEVICES"
        ) from None
    return mine


def _holder(name: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(name)
            found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return "which has just ended"
    return f"process {_CREDENTIALS.unpack(found)[0]}"
