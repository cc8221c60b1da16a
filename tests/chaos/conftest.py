"""What was killed, by role, in the summary: also where workers ran the nights."""

from __future__ import annotations

import json
from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report
        for found in terminalreporter.stats.values()
        for report in found
        if isinstance(report, pytest.TestReport) and report.when == "call"
    ]
    killed: Counter[str] = Counter()
    for report in reports:
        for name, value in report.user_properties:
            if name == "killed":
                killed.update(json.loads(str(value)))
    for role, count in sorted(killed.items()):
        terminalreporter.write_line(f"{count:5} kills: {role}")
