"""Publishes the metrics of a study while it runs: to a file, on a port, or both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tuner.errors import PreflightError, TunerError, UsageError
from tuner.records import Failure, LoadSnapshot, Measurement
from tuner.report.metrics.families import families, power_family
from tuner.report.study_results import load_study
from tuner.study.confirmation.plan import Step
from tuner.study.listener import NullListener, Progress
from tuner.study.proposals.proposals import Proposal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

_EVERY_S = 15.0  # how often the store is read and the file is written, at most


class MetricsPublisher(NullListener):
    """A listener that publishes the study that it hears of, in a thread of its own.

    The file is replaced as a whole, so node_exporter never reads half of it. What cannot be
    published is noted once, and never harms the run. The file stays after the end, with
    `tuner_running` 0.
    """

    def __init__(
        self,
        store_url: str,
        note: Callable[[str], None],
        *,
        file: Path | None = None,
        port: int | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        """Open the port; raises `UsageError` or `PreflightError` before anything is started."""
        self._store_url, self._note, self._file = store_url, note, file
        self._study: str | None = None
        self._known: Sequence[Metric] = ()
        self._now: LoadSnapshot | None = None
        self._has_news = self._has_noted = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="metrics", daemon=True)
        self._registry, self._close = _opened(self, file, port, host)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as of now: Prometheus' client asks for them."""
        study = self._study
        return [*self._known, *([] if study is None else power_family(study, self._now))]

    def study_started(self, name: str, progress: Progress) -> None:
        """Publish that it has begun."""
        self._study, self._has_news = name, True
        if not self._thread.is_alive():
            self._thread.start()

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        """Publish what came out, soon."""
        self._now, self._has_news = None, True

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """Publish what came out, soon."""
        self._now, self._has_news = None, True

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        """Keep the present power for the next reading."""
        self._now = snapshot

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0 * _EVERY_S)
        self._close()

    def _publish(self) -> None:
        self._refresh()
        while not self._ended.wait(_EVERY_S):
            self._refresh()
        self._now, self._has_news = None, True
        self._refresh()

    def _refresh(self) -> None:
        if self._study is None:
            return
        try:
            if self._has_news:
                self._has_news = False
                study = load_study(self._study, self._store_url)
                self._known = families(study, is_running=not self._ended.is_set())
            if self._file is not None:
                from prometheus_client import write_to_textfile

                write_to_textfile(str(self._file), self._registry)
        except (TunerError, OSError) as error:
            if not self._has_noted:
                self._has_noted = True
                self._note(f"the metrics are not published: {error}")


def _opened(
    publisher: MetricsPublisher, file: Path | None, port: int | None, host: str
) -> tuple[CollectorRegistry, Callable[[], None]]:
    """Return the registry, and what closes the port."""
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise UsageError("metrics need prometheus_client: pip install prometheus_client") from None
    if file is not None and not file.absolute().parent.is_dir():
        raise UsageError(f"--metrics-file: there is no folder {file.absolute().parent}")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(publisher)
    if port is None:
        return registry, lambda: None
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise PreflightError(
            f"--metrics-port {port} on {host} cannot be opened: {error.strerror}"
        ) from None

    def close() -> None:
        with suppress(OSError):
            server.shutdown()
            server.server_close()
        thread.join(timeout=2.0)

    return registry, close
