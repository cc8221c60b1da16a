"""What `tuner store check` found, for people and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tuner.store.upkeep.checks import Finding


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print the findings, problems first."""
    for finding in sorted(findings, key=lambda f: not f.is_problem):
        mark = Text("problem", "red") if finding.is_problem else Text("note   ", "dim")
        line = Text(f"  {finding.where}: {finding.message}")
        console.print(mark + line, highlight=False, soft_wrap=True)
    if not any(finding.is_problem for finding in findings):
        console.print("the store is sound", highlight=False)


def findings_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for programs."""
    return {
        "sound": not any(finding.is_problem for finding in findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
