"""Progress display: a live screen on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tuner.measurement.racing.sentence import lost_in
from tuner.metrics import LATENCIES, metric_named
from tuner.pareto import pareto_front
from tuner.records import Failure, LoadSnapshot, Measurement
from tuner.report.labels import EARLY, EARLY_NOTE, metric_label, number
from tuner.report.launch_text import launch_text
from tuner.report.snapshot_text import snapshot_text
from tuner.report.terminal.status_table import duration
from tuner.slo import Slo, meets_all
from tuner.spec.objective import Objective, costs
from tuner.store import RepeatKind, TrialRow
from tuner.store.log.now_file import FRESH_S
from tuner.study.confirmation.plan import Step
from tuner.study.listener import Progress as Spent
from tuner.study.proposals.proposals import Proposal

_MOST_FRONT, _MOST_FAULTS = 6, 3
# Drawing takes the time of the thread that also drives the load.
_REFRESHES_PER_S = 2.0


class RunDisplay:
    """A `Listener` that writes a line per trial to stderr, and on a terminal how it all stands.

    `known` are the trials that a resumed study has already. `logs` returns the folder of a study's
    server logs.
    """

    def __init__(
        self,
        console: Console,
        slos: tuple[Slo, ...],
        objectives: tuple[Objective, ...],
        store_option: str = "",
        known: Sequence[TrialRow] = (),
        logs: Callable[[str], Path] | None = None,
    ) -> None:
        self._console = console
        self._store_option = store_option
        self._logs = logs
        self._log_folder: Path | None = None  # once the study has begun
        self._created_s = time.monotonic()
        self._slos = slos
        self._objectives = objectives
        self._shown = tuple(
            dict.fromkeys([o.metric for o in objectives] + [s.metric for s in slos])
        )
        self._good: dict[int, tuple[tuple[float, ...], Measurement]] = {}
        for trial in known:
            if trial.measurement is not None and trial.failure is None:
                self._keep_if_good(trial.number, trial.measurement)
        self._has_explained_early = False
        self._faults: deque[str] = deque(maxlen=_MOST_FAULTS)
        self._now: tuple[Proposal, float] | None = None  # what runs, and since when (monotonic)
        self._trial_began_s = 0.0  # since 1970, as the times of files
        self._snapshot: tuple[LoadSnapshot, float] | None = None  # and when (monotonic)
        self._began: tuple[float, float] | None = None  # when, and the share spent by then
        self._share = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[budget]}"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("preparing", total=1.0, budget="")
        self._live = Live(
            console=console,
            transient=True,
            refresh_per_second=_REFRESHES_PER_S,
            get_renderable=self.screen,
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def screen(self) -> Group:
        """Return how the study stands now: progress, what runs, the front, the last faults."""
        parts: list[Progress | Table | Text] = [self._bar]
        if self._began is None:
            since = duration(time.monotonic() - self._created_s)
            line = f"preparing for {since}: asking for the server's version and flags, and the GPUs"
            parts.append(Text(line, no_wrap=True, overflow="ellipsis"))
        if self._now is not None:
            proposal, since_s = self._now
            since = duration(time.monotonic() - since_s)
            line = f"now: trial {proposal.number} for {since}: {describe(proposal)}"
            parts.append(Text(line, no_wrap=True, overflow="ellipsis"))
        if self._snapshot is not None and time.monotonic() - self._snapshot[1] < FRESH_S:
            parts.append(Text(f"     {snapshot_text(self._snapshot[0])}", style="cyan"))
        elif self._now is not None and (launch := self._launch()) is not None:
            parts.append(Text(f"     no load yet; {launch}", style="cyan", overflow="fold"))
        if self._good:
            parts.append(self._front())
        parts += [
            Text(f"fault: {fault}", style="red", no_wrap=True, overflow="ellipsis")
            for fault in self._faults
        ]
        return Group(*parts)

    def _launch(self) -> str | None:
        """Return which server log is written, while no load runs."""
        if self._log_folder is None or self._now is None:
            return None
        return launch_text(self._log_folder, self._trial_began_s)

    def _front(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        members = self.front
        for position, trial in enumerate(members[:_MOST_FRONT]):
            figures = self._values(self._good[trial][1])
            head = f"front ({len(members)})" if position == 0 else ""
            table.add_row(head, Text(str(trial), style="bold green"), figures)
        return table

    @property
    def front(self) -> list[int]:
        """The trials of the front so far, best in the first objective first; none confirmed."""
        numbers = list(self._good)
        return [numbers[i] for i in pareto_front([point for point, _ in self._good.values()])]

    def _keep_if_good(self, number_: int, measurement: Measurement) -> None:
        if measurement.ended_early is not None or not meets_all(measurement.metrics, self._slos):
            return
        point = costs(self._objectives, measurement.metrics)
        if point is not None:
            self._good[number_] = (point, measurement)

    def study_started(self, name: str, progress: Spent) -> None:
        """Say which study, and how far it is."""
        done = f", {progress.trials} trials done" if progress.trials else ""
        resume = f"tuner resume {name}{self._store_option}"
        self.note(f"study {name}{done}; interrupted or not, `{resume}` goes on with it")
        if not self._slos:
            self.note("no SLO: the least energy may come with any latency (see --slo)")
        self._began = (time.monotonic(), progress.share)
        self._log_folder = None if self._logs is None else self._logs(name)
        self._update("study started", progress)

    def trial_started(self, proposal: Proposal) -> None:
        """Show what is being evaluated."""
        self._now = (proposal, time.monotonic())
        self._trial_began_s = time.time()
        self._bar.update(self._task, description=f"trial {proposal.number}")

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Spent
    ) -> None:
        """Write one line of what came out."""
        line = self._line(proposal.number, result)
        if isinstance(result, Measurement):
            self._keep_if_good(proposal.number, result)
        self._now = self._snapshot = None
        text = _trial_line(proposal.number, line, describe(proposal))
        if self._console.is_terminal:
            self._console.print(text, highlight=False, no_wrap=True, overflow="ellipsis")
        else:
            self._console.print(text, highlight=False, soft_wrap=True)  # a log keeps it whole
        self._update(f"trial {proposal.number}", progress)

    def _line(self, trial: int, result: Measurement | Failure) -> Text:
        if isinstance(result, Failure):
            self._faults.append(f"trial {trial}: {result.reason}")
            return self._failed(result)
        if result.ended_early is not None and not self._has_explained_early:
            self._has_explained_early = True
            self.note(EARLY_NOTE)
        return Text.assemble(self._verdict(result), self._values(result))

    def _verdict(self, result: Measurement) -> tuple[str, str]:
        if lost_in(result.ended_early or "") is not None:
            return ("early ", "yellow")  # it was no better than another
        if result.ended_early is None and meets_all(result.metrics, self._slos):
            return ("ok    ", "green")
        return ("slo   ", "yellow")

    def _values(self, measurement: Measurement) -> str:
        values, mark = [], "" if measurement.ended_early is None else EARLY
        for name in dict.fromkeys([*self._shown, "mean_power_w"]):
            value = f"{number(measurement.metrics.get(name))}{mark}"
            values.append(f"{value:>6} {metric_named(name).unit}{_label(name)}")
        return "  ".join(values)

    def _failed(self, failure: Failure) -> Text:
        return Text.assemble((str(failure.kind), "red"), f" {failure.reason}")

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """Write one line of what a configuration measured again."""
        self._snapshot = None
        line = self._line(step.trial.number, result)
        what = "default again" if step.kind is RepeatKind.BASELINE else "again"
        text = _trial_line(step.trial.number, line, what)
        self._console.print(text, highlight=False, soft_wrap=True)
        self._bar.update(self._task, description=f"confirming trial {step.trial.number}")

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        """Show how the load goes, at the next refresh."""
        self._snapshot = (snapshot, time.monotonic())

    def note(self, message: str) -> None:
        """Write a line."""
        self._console.print(Text(message), highlight=False, soft_wrap=True)

    def _update(self, description: str, progress: Spent) -> None:
        parts = []
        self._share = progress.share
        if progress.budget_trials is not None:
            over = progress.trials - progress.budget_trials
            done = f"{min(progress.trials, progress.budget_trials)}/{progress.budget_trials} trials"
            parts.append(f"{done} + {over}" if over > 0 else done)
        if math.isfinite(progress.budget_s):
            parts.append(f"{progress.spent_s / 3600:.1f}/{progress.budget_s / 3600:g} h")
        left_s = self._left_s()
        if left_s is not None:
            parts.append(f"about {duration(left_s)} left")
        self._bar.update(
            self._task,
            description=description,
            completed=progress.share,
            budget=", ".join(parts),
        )

    def _left_s(self) -> float | None:
        """Return the wall time to the end of the search at the pace of this run so far, s."""
        if self._began is None:
            return None
        began_s, share = self._began
        if self._share <= share:
            return None
        pace_s = (time.monotonic() - began_s) / (self._share - share)
        return pace_s * (1.0 - self._share)


def _trial_line(number_: int, line: Text, what: str) -> Text:
    return Text.assemble((f"{number_:>4}", "bold"), "  ", line, "  ", (what, "dim"))


def _label(metric: str) -> str:
    """Return ` p99 TPOT` for a latency; a unit alone says what the others are."""
    _, _, latency = metric.partition("_")
    return f" {metric_label(metric)}" if latency in LATENCIES else ""


def describe(proposal: Proposal) -> str:
    """Return a configuration in one line."""
    knobs = " ".join(f"{name}={value}" for name, value in proposal.configuration.knobs().items())
    if not proposal.baseline:
        return knobs or "every knob unset"
    return f"your baseline: {knobs}" if knobs else "vLLM's defaults"
