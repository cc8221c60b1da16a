"""Findings of `tuner doctor` and `tuner store check`, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.host.finding import Finding, Level
from tuner.report.terminal.layout.narrow import Parts

_STYLES = {Level.OK: "green", Level.NOTE: "dim", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


def findings_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings, and how many there are of the bad levels."""
    counts = Counter(finding.level for finding in findings)
    return {
        "problems": counts[Level.PROBLEM],
        "warnings": counts[Level.WARNING],
        "findings": [_finding(finding) for finding in findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    """Return one finding; `where`, `is_problem` and `mend` are what programs know them by."""
    return {
        "check": finding.check,
        "where": finding.check,
        "level": finding.level.value,
        "is_problem": finding.is_problem,
        "message": finding.message,
        "mend": finding.fix,
    }


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print a line per finding, and below it the command that fixes it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for finding in findings:
        text = Parts(finding.message)
        if finding.fix is not None:
            text.append(f"\n$ {finding.fix}", style="cyan")
        table.add_row(Text(finding.level.value, style=_STYLES[finding.level]), finding.check, text)
    console.print(table)
