"""A workload as a table, as JSON, and as histograms."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.analysis.load_text import offered_text
from tuner.load.summary import (
    Bar,
    Spread,
    WorkloadSummary,
    histogram,
    length_histogram,
    spread,
)
from tuner.load.workload import Workload
from tuner.records import FloatArray

_BARS = 16
_BAR_WIDTH = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def show_workload(console: Console, workload: Workload, summary: WorkloadSummary) -> None:
    """Print a workload's load, hash, lengths and sources."""
    _describe(console, workload, summary)
    console.print(_table(workload, summary))


def preview_workload(console: Console, workload: Workload, summary: WorkloadSummary) -> None:
    """Print the same with histograms of lengths and arrivals."""
    _describe(console, workload, summary)
    for title, values in _columns(workload, summary).items():
        bars = length_histogram if "tokens" in title else histogram
        _draw(console, title, bars(values, _BARS))
    console.print(_table(workload, summary))


def workload_json(workload: Workload, summary: WorkloadSummary) -> dict[str, Any]:
    """Return a JSON-ready form of a workload; what is unknown is null."""
    spec = workload.spec
    return {
        "name": workload.name,
        "kind": _kind(workload, summary),
        "description": spec.description,
        "sources": list(spec.sources),
        "sha256": workload.sha256,
        "load": spec.load.model_dump(mode="json", exclude_none=True),
        "max_request_tokens": workload.max_request_tokens if spec.generation is None else None,
        "generation": None
        if spec.generation is None
        else spec.generation.model_dump(mode="json", exclude_none=True),
        "trace_requests": None if workload.facts is None else workload.facts.rows,
        "summary": {
            "requests": summary.requests,
            "prompt_tokens": asdict(spread(summary.prompt_tokens)),
            "prompt_tokens_estimated": summary.is_text,
            "output_tokens": asdict(spread(summary.output_tokens))
            if spec.generation is None
            else None,
            "gap_s": asdict(spread(summary.gaps_s)) if summary.gaps_s.size else None,
            "gap_variation": summary.gap_variation,
            "shared_prompt_share": summary.shared_prompt_share,
        },
    }


def _kind(workload: Workload, summary: WorkloadSummary) -> str:
    if workload.facts is None:
        return "synthetic"
    return "text trace" if summary.is_text else "trace"


def _describe(console: Console, workload: Workload, summary: WorkloadSummary) -> None:
    spec = workload.spec
    offered = offered_text(workload.default_load)
    if spec.load.concurrency is None:
        offered = f"{offered}, {_arrivals(workload)}"
    lines = {
        workload.name: spec.description,
        "kind": _kind(workload, summary),
        "load": offered,
        **_asked_for(workload),
        "sha256": workload.sha256,
    }
    if summary.shared_prompt_share is not None:
        lines["shared"] = (
            f"{100 * summary.shared_prompt_share:.1f} % of the prompt tokens were seen before"
        )
    if workload.facts is not None:
        lines["trace"] = f"{workload.facts.rows} requests, repeated with fresh prompts"
    grid = Table.grid(padding=(0, 2))
    for label, value in lines.items():
        grid.add_row(Text(label, style="bold"), Text(value))
    for source in spec.sources:
        grid.add_row(Text("source", style="bold"), Text(source))
    console.print(grid)


def _asked_for(workload: Workload) -> dict[str, str]:
    """Return how much a request asks for at the most, or which images or videos."""
    asked = workload.spec.generation
    if asked is None:
        return {"longest": f"{workload.max_request_tokens} tokens, prompt and output"}
    total = sum(size.share for size in asked.sizes)
    sizes = ", ".join(f"{s.width}x{s.height} ({100 * s.share / total:.0f} %)" for s in asked.sizes)
    clip = "" if asked.fps is None else f", {asked.frames} frames at {asked.fps:g} a second"
    return {"asks for": f"{asked.output}s of {sizes}{clip}, {asked.steps} steps"}


def _arrivals(workload: Workload) -> str:
    arrivals = workload.spec.load.arrivals
    if isinstance(arrivals, str):
        return {"trace": "at the trace's own times"}.get(arrivals, arrivals)
    return f"gamma with shape {arrivals.gamma:g}"


def _columns(workload: Workload, summary: WorkloadSummary) -> dict[str, FloatArray]:
    estimated = ", estimated" if summary.is_text else ""
    is_text = workload.spec.output.is_text
    columns = {
        f"prompt tokens{estimated}": summary.prompt_tokens,
        **({"output tokens": summary.output_tokens} if is_text else {}),
        f"gap at {summary.request_rate:g} req/s, s": summary.gaps_s,
    }
    return {title: values for title, values in columns.items() if values.size}


def _table(workload: Workload, summary: WorkloadSummary) -> Table:
    table = Table(title=f"the first {summary.requests} requests", title_justify="left")
    table.add_column("")
    for name in Spread.__dataclass_fields__:
        table.add_column(Text(name), justify="right")
    for title, values in _columns(workload, summary).items():
        numbers = asdict(spread(values)).values()
        table.add_row(title, *(_number(number) for number in numbers))
    return table


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _draw(console: Console, title: str, bars: list[Bar]) -> None:
    console.print(Text(title, style="bold"))
    labels = [_label(bar) for bar in bars]
    width = max(len(label) for label in labels)
    total, most = sum(bar.count for bar in bars), max(bar.count for bar in bars)
    for label, bar in zip(labels, bars, strict=True):
        eighths = round(8 * _BAR_WIDTH * bar.count / most)
        drawn = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        line = f"  {label:>{width}}  {drawn:<{_BAR_WIDTH}}  {100 * bar.count / total:5.1f} %"
        console.print(Text(line, no_wrap=True, overflow="ellipsis"))
    console.print()


def _label(bar: Bar) -> str:
    if bar.low == bar.high:
        return _number(bar.low)
    return f"{_number(bar.low)} - {_number(bar.high)}"
