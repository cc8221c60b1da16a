"""What the doctor found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.doctor.finding import Finding, Level

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


def findings_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings, and how many there are of each level."""
    counts = Counter(finding.level for finding in findings)
    return {
        "problems": counts[Level.PROBLEM],
        "warnings": counts[Level.WARNING],
        "findings": [{**asdict(f), "level": f.level.value} for f in findings],
    }


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print a line per finding, and below it the command that mends it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(finding.message)
        if finding.mend is not None:
            text.append(f"\n$ {finding.mend}", style="cyan")
        table.add_row(Text(finding.level.value, style=_STYLES[finding.level]), finding.check, text)
    console.print(table)
