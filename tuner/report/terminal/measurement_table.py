"""One configuration, measured once, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.analysis.load_text import offered_text
from tuner.analysis.outcomes import finished_requests
from tuner.evaluation.evaluator import load_defaults
from tuner.evaluation.measure_once import MeasuredOnce
from tuner.measurement.precision import Achieved
from tuner.metrics import METRICS
from tuner.records import Source
from tuner.report.labels import UNKNOWN, emulated_label, number
from tuner.report.terminal.front_table import heading
from tuner.slo import Slo


def measured_json(measured: MeasuredOnce) -> dict[str, Any]:
    """Return every metric of the window, and what it was measured on."""
    m = measured.measurement
    return {
        "configuration": measured.configuration.knobs(),
        "load": load_defaults(measured.load),
        "server_version": measured.testbed.server_version,
        "gpu": measured.testbed.gpu,
        "driver": measured.testbed.driver,
        "energy_source": m.energy_source.value,
        "latency_source": m.latency_source.value,
        "requests": finished_requests(m),
        "window_s": m.window_end_s - m.window_start_s,
        "metrics": dict(m.metrics),
        "emulator_error": dict(measured.emulated_errors),
        "intervals_95": {k: [i.low, i.high] for k, i in measured.intervals.items()},
        "precise": all(a.reached for a in measured.precision) if measured.precision else None,
        "precision": {a.metric: _precision_json(a) for a in measured.precision},
        "warnings": list(measured.warnings),
    }


def _precision_json(a: Achieved) -> dict[str, Any]:
    return {
        "half_width_share": a.half_width_share,
        "target_share": a.target_share,
        "reached": a.reached,
    }


def show_measured(console: Console, measured: MeasuredOnce, slos: Sequence[Slo]) -> None:
    """Print the metrics as a table, those with an SLO marked."""
    m = measured.measurement
    sources = {"energy": m.energy_source, "latency": m.latency_source}
    emulated = [what for what, source in sources.items() if source is Source.EMULATED]
    console.print(heading(f"One window on {measured.testbed.gpu}", emulated_label(emulated)))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric")
    table.add_column("value", justify="right")
    if measured.emulated_errors:
        table.add_column("± emulator", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("unit")
    table.add_column("SLO")
    bounds = {slo.metric: slo for slo in slos}
    for name in METRICS:
        if name in m.metrics:
            slo = bounds.get(name)
            mark = "" if slo is None else _mark(slo, m.metrics[name])
            interval = measured.intervals.get(name)
            shown = UNKNOWN
            if interval is not None:
                shown = f"{number(interval.low)} - {number(interval.high)}"
            cells = [name, number(m.metrics[name])]
            if measured.emulated_errors:
                error = measured.emulated_errors.get(name)
                cells.append(UNKNOWN if error is None else f"{100 * error:.0f} %")
            table.add_row(*cells, shown, METRICS[name].unit, mark)
    console.print(table)
    window_s = m.window_end_s - m.window_start_s
    if measured.emulated_errors:
        console.print("± emulator: nine in ten figures measured on real GPUs lay within it")
    console.print(_load_line(measured))
    console.print(f"window of {window_s:.0f} s{_precision_text(measured.precision)}")
    for warning in measured.warnings:
        console.print(Text.assemble(("warning:", "yellow"), f" {warning}"))


def _load_line(measured: MeasuredOnce) -> str:
    """Return the load that was asked for beside what was offered, and what the figures rest on."""
    offered = measured.measurement.metrics.get("offered_rate_req_s")
    text = offered_text(measured.load)
    if measured.load.request_rate is not None and offered is not None:
        text += f" asked for, {number(offered)} offered in the window"
    count = finished_requests(measured.measurement)
    return text if count is None else f"{text}; percentiles of {count:,} requests"


def _precision_text(found: Sequence[Achieved]) -> str:
    if not found:
        return ", a fixed length"
    start = "precise" if all(a.reached for a in found) else "not precise"
    return f", {start}: half-widths {', '.join(map(str, found))}"


def _mark(slo: Slo, value: float) -> Text:
    met = slo.violation(value) <= 0
    return Text.assemble(f"{slo} ", ("met", "green") if met else ("missed", "red"))
