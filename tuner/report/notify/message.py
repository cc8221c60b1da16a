"""The message about a night that ended: a line for people, and its facts for programs."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tuner.analysis.outcomes import with_errors
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.errors import (
    InterruptedBySignalError,
    NoFeasibleConfigurationError,
    OperatorNeededError,
)
from tuner.host.redaction import redacted, redacted_json
from tuner.measurement.statistics.unseen_traffic import SloVerdict
from tuner.report.json_forms import recommendation_json
from tuner.report.labels import emulated_label, metric_label, number
from tuner.report.sentences.saving_text import headline, interval_text
from tuner.report.study_results import StudyResults


class Event(StrEnum):
    """How a night ended."""

    FINISHED = "finished"
    NOTHING_FEASIBLE = "no_feasible_configuration"
    NEEDS_OPERATOR = "needs_operator"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Message:
    """What is told: `text` is one line, `exit_code` that of the command."""

    event: Event
    study: str | None
    exit_code: int
    text: str
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the body of a webhook, without secrets; Slack and its like show `text`."""
        body = {
            "text": self.text,
            "event": self.event.value,
            "study": self.study,
            "exit_code": self.exit_code,
            "host": socket.gethostname(),
            **self.facts,
        }
        return dict(redacted_json(body))


def finished_message(study: StudyResults) -> Message:
    """Return the message about a study whose budget is spent."""
    name = study.name
    if not study.confirmed_front.front:
        reason = study.why_nothing_met()
        code = NoFeasibleConfigurationError.exit_code
        text = _line(name, f"ended, and nothing met the SLO: {reason}")
        return Message(Event.NOTHING_FEASIBLE, name, code, text)
    found = study.recommendation
    facts = {"recommendation": recommendation_json(found)}
    return Message(Event.FINISHED, name, 0, _line(name, f"finished: {_answer(found)}"), facts)


def stopped_message(study: str | None, error: BaseException) -> Message:
    """Return the message about a run that an error or a signal ended."""
    if isinstance(error, OperatorNeededError):
        event, what = Event.NEEDS_OPERATOR, "needs you"
    elif isinstance(error, InterruptedBySignalError):
        event, what = Event.INTERRUPTED, "was stopped"
    else:
        event, what = Event.FAILED, "failed"
    code = int(getattr(error, "exit_code", 1))
    return Message(event, study, code, _line(study, f"{what}: {error or type(error).__name__}"))


def _line(study: str | None, what: str) -> str:
    named = "a run" if study is None else f"study {study}"
    return " ".join(redacted(f"tuner on {socket.gethostname()}: {named} {what}").split())


def _answer(found: Recommendation) -> str:
    best = found.summary_of(found.best)
    label = emulated_label(with_errors(found.study, found.emulated))
    emulated = f" [{label}]" if label else ""
    if found.is_default:
        return f"{headline(found)}{emulated}"
    latency = best.kind.columns[0]
    said = [
        f"trial {best.number}: {headline(found)}",
        f"{metric_label(latency)} {number(best.metrics.get(latency))} ms",
        "confirmed" if best.confirmed else "unconfirmed",
    ]
    if (interval := interval_text(best)) is not None:
        said.insert(1, interval)
    if best.confirmed and best.slo_verdict == SloVerdict.UNCERTAIN:
        said.append("unsure whether the SLO is met")
    command = f"`tuner recommend --study {found.study.name}`"
    return f"{', '.join(said)}{emulated}; {command}"
