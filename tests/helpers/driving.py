"""A load on a server, for tests that look at its records alone."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.load.client.client import ClientLimits
from tuner.load.client.drive import drive
from tuner.records import Load, Request, RequestRecord, SteadyWatch
from tuner.servers.server import Endpoint


async def drive_records(
    server: Endpoint,
    requests: Iterator[Request],
    load: Load,
    watch: SteadyWatch,
    *,
    limits: ClientLimits | None = None,
) -> tuple[RequestRecord, ...]:
    report = await drive(server, requests, load, watch, limits=limits)
    return report.records
