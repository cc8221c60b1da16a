"""What a user sees while a study runs: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tuner.metrics import LATENCIES, metric_named
from tuner.records import Failure, Measurement
from tuner.report.tables import number
from tuner.slo import Slo, meets_all
from tuner.store import RepeatKind
from tuner.study.confirm_plan import Step
from tuner.study.loop import Progress as Spent
from tuner.study.objective import Objective
from tuner.study.proposals import Proposal


class RunDisplay:
    """A `Listener` that writes to stderr."""

    def __init__(
        self,
        console: Console,
        slos: tuple[Slo, ...],
        objectives: tuple[Objective, ...],
        store_option: str = "",
    ) -> None:
        self._console = console
        self._store_option = store_option
        self._slos = slos
        self._shown = tuple(
            dict.fromkeys([o.metric for o in objectives] + [s.metric for s in slos])
        )
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[budget]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("preparing", total=1.0, budget="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def study_started(self, name: str, progress: Spent) -> None:
        """Say which study, and how far it is."""
        done = f", {progress.trials} trials done" if progress.trials else ""
        resume = f"tuner resume {name}{self._store_option}"
        self.note(f"study {name}{done}; interrupted or not, `{resume}` goes on with it")
        if not self._slos:
            self.note("no SLO: the least energy may come with any latency (see --slo)")
        self._update("study started", progress)

    def trial_started(self, proposal: Proposal) -> None:
        """Show what is being evaluated."""
        self._bar.update(self._task, description=f"trial {proposal.number}")

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Spent
    ) -> None:
        """Write one line of what came out."""
        line = self._failed(result) if isinstance(result, Failure) else self._measured(result)
        text = f"[bold]{proposal.number:>4}[/]  {line}  [dim]{escape(describe(proposal))}[/]"
        if self._console.is_terminal:
            self._console.print(text, highlight=False, no_wrap=True, overflow="ellipsis")
        else:
            self._console.print(text, highlight=False, soft_wrap=True)  # a log keeps it whole
        self._update(f"trial {proposal.number}", progress)

    def _measured(self, measurement: Measurement) -> str:
        values = []
        for name in self._shown:
            value = measurement.metrics.get(name)
            values.append(f"{number(value):>6} {metric_named(name).unit}{_label(name)}")
        met = meets_all(measurement.metrics, self._slos)
        return ("[green]ok  [/]" if met else "[yellow]slo [/]") + "  ".join(values)

    def _failed(self, failure: Failure) -> str:
        return f"[red]{failure.kind}[/] {escape(failure.reason)}"

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        """Write one line of what a configuration measured again."""
        line = self._failed(result) if isinstance(result, Failure) else self._measured(result)
        what = "default again" if step.kind is RepeatKind.BASELINE else "again"
        text = f"[bold]{step.trial.number:>4}[/]  {line}  [dim]{what}[/]"
        self._console.print(text, highlight=False, soft_wrap=True)
        self._bar.update(self._task, description=f"confirming trial {step.trial.number}")

    def note(self, message: str) -> None:
        """Write a line."""
        self._console.print(escape(message), highlight=False, soft_wrap=True)

    def _update(self, description: str, progress: Spent) -> None:
        parts = []
        if progress.budget_trials is not None:
            parts.append(f"{progress.trials}/{progress.budget_trials} trials")
        if math.isfinite(progress.budget_s):
            parts.append(f"{progress.spent_s / 3600:.1f}/{progress.budget_s / 3600:g} h")
        self._bar.update(
            self._task,
            description=description,
            completed=progress.share,
            budget=", ".join(parts),
        )


def _label(metric: str) -> str:
    """Return ` p99 TPOT` for a latency; a unit alone says what the others are."""
    statistic, _, latency = metric.partition("_")
    return f" {statistic} {latency.removesuffix('_ms').upper()}" if latency in LATENCIES else ""


def describe(proposal: Proposal) -> str:
    """Return a configuration in one line."""
    if proposal.baseline:
        return "vLLM's defaults"
    return " ".join(f"{name}={value}" for name, value in proposal.configuration.knobs().items())
