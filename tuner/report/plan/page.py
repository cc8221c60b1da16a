"""The page of a plan: the day's load, replicas, power and SLO, in one HTML file without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from tuner.analysis.plan.operating_plan import OperatingPlan
from tuner.analysis.plan.proved_plan import ProvedPlan
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.analysis.plan.simulation.tallies import TaskProof
from tuner.analysis.plan.tasks_plan import TasksPlan
from tuner.records import FloatArray
from tuner.report.plan.timers import write_text
from tuner.report.terminal.plan.plan_table import action_text, clock, kwh
from tuner.report.terminal.plan.tasks_table import WAY_TITLES, way_rows, ways_summary

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 900, 180, 60, 24
_COLOURS = ("#2459c4", "#0a7d55", "#a85b00", "#7b3fb5", "#57635d")
_GREY, _BAD = "#9aa59f", "#b3261e"
_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:960px;padding:0 1rem;"
    "color:#17201c;background:#fff}svg{width:100%;height:auto}h2{font-size:1.05rem;margin:1.6rem "
    "0 .3rem}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left}"
    ".soft{color:#57635d}.badge{background:#a85b00;color:#fff;padding:.1rem .5rem;"
    "border-radius:.3rem;font-size:.8rem}"
)


def write_page(found: ProvedPlan | TasksPlan, path: Path) -> Path:
    """Write the page, whole or not at all. Raises `PreflightError`."""
    return write_text(path, page(found))


def page(found: ProvedPlan | TasksPlan) -> str:
    """Return the page of a plan; of one for several tasks with a part for each plan."""
    if isinstance(found, TasksPlan):
        where = " and ".join(dict.fromkeys(t for p in found.best.plans for t in p.tasks))
        parts = [_title(f"{where}, {found.gpus} GPUs", found.emulated), _ways(found)]
        for plan in found.best.plans:
            parts += [f"<h2>{escape(' and '.join(plan.tasks))}</h2>", *_parts(plan, "h3")]
        parts += [f'<p class="soft">{escape(note)}</p>' for note in found.notes]
    else:
        where = f"{found.plan.curve.source}, {found.plan.options.gpus} GPUs"
        title = _title(where, found.emulated)
        parts = [title, *_parts(found, "h2")]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width"><title>Operating plan</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _title(text: str, emulated: bool) -> str:
    badge = ' <span class="badge">emulated</span>' if emulated else ""
    return f"<h1>Operating plan for {escape(text)}{badge}</h1>"


def _ways(found: TasksPlan) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in WAY_TITLES)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for cells in way_rows(found)
    )
    said = " ".join(f"{line}." for line in ways_summary(found))
    return f"<p>{escape(said)}</p><table><tr>{titles}</tr>{rows}</table>"


def _parts(found: ProvedPlan, heading: str) -> list[str]:
    plan = found.plan

    def title(text: str) -> str:
        return f"<{heading}>{text}</{heading}>"

    return [
        _summary(found),
        title("Load and capacity, requests/s"),
        _load_chart(plan),
        title("Running replicas"),
        _replica_chart(plan),
        title("Power by the operating points, W"),
        _power_chart(plan),
        *(
            part
            for task in ([] if found.proof is None else found.proof.tasks)
            for part in (title(_slo_title(task, len(found.tasks))), _slo_chart(task))
        ),
        title("Actions"),
        _actions(plan),
        title("Configurations"),
        _types(plan),
        *(f'<p class="soft">{escape(note)}</p>' for note in found.notes),
    ]


def _slo_title(task: TaskProof, tasks: int) -> str:
    of_task = f" of {escape(task.task)}" if tasks > 1 else ""
    return f"Requests{of_task} within the SLO, by hour (emulated)"


def _summary(found: ProvedPlan) -> str:
    plan, proof, static = found.plan, found.proof, found.fixed_proof
    said = [f"By the operating points: {kwh(plan.energy_j)}."]
    if proof is not None:
        said.append(
            f"In simulation (emulated): {kwh(proof.energy_j)}, router {proof.routing}; the SLO is "
            f"met by {100 * proof.worst.attainment:.2f} % of the requests in the worst hour."
        )
    if found.saved is not None:
        beside = plan.static.energy_j if static is None and plan.static else None
        still_j = beside if static is None else static.energy_j
        assert still_j is not None
        if found.saved <= 0.0:
            said.append(f"A fleet that stays as it is uses no more ({kwh(still_j)}).")
        else:
            said.append(
                f"{100 * found.saved:.0f} % less than the best fixed fleet ({kwh(still_j)})."
            )
    return f"<p>{escape(' '.join(said))}</p>"


def _load_chart(plan: OperatingPlan) -> str:
    capacity = plan.running @ np.array([t.capacity for t in plan.types])
    return _chart(
        plan,
        [
            ("capacity under the SLO", _GREY, capacity),
            ("load with reserve", _COLOURS[2], plan.demand.needs),
            ("load", _COLOURS[0], plan.demand.rates),
        ],
    )


def _replica_chart(plan: OperatingPlan) -> str:
    lines = []
    for place, kind in enumerate(plan.types):
        colour = _COLOURS[place % len(_COLOURS)]
        if plan.running[:, place].any():
            lines.append((kind.name, colour, plan.running[:, place].astype(float)))
        if plan.asleep[:, place].any():
            lines.append((f"{kind.name} asleep", _GREY, plan.asleep[:, place].astype(float)))
    return _chart(plan, lines)


def _power_chart(plan: OperatingPlan) -> str:
    lines = [("plan", _COLOURS[1], plan.power_w)]
    if plan.static is not None:
        lines.append(("best fixed fleet", _GREY, _constant_w(plan)))
    return _chart(plan, lines)


def _constant_w(plan: OperatingPlan) -> FloatArray:
    """Return the power of the best fixed fleet in each interval."""
    assert plan.static is not None
    counts = plan.static.running
    pairs = list(zip(counts, plan.types, strict=True))
    capacity = sum(n * t.capacity for n, t in pairs)
    off = plan.options.gpus - sum(n * t.gpus for n, t in pairs)
    share = plan.demand.rates / capacity
    total = np.full(plan.demand.intervals, off * plan.off_w)
    for count, kind in pairs:
        total = total + count * kind.power_w(share * kind.capacity)
    return np.asarray(total, dtype=np.float64)


def _slo_chart(task: TaskProof) -> str:
    width = (_WIDTH - _LEFT) / len(task.hours)
    least = min(0.98, *(hour.attainment for hour in task.hours))
    bars = []
    for place, hour in enumerate(task.hours):
        height = (_HEIGHT - _BOTTOM) * (hour.attainment - least) / (1.0 - least)
        title = f"hour {hour.number}: {100 * hour.attainment:.2f} % of {hour.requests} requests"
        fill = _COLOURS[1] if task.is_met(hour) else _BAD
        bars.append(
            f'<rect x="{_LEFT + place * width:.1f}" y="{_HEIGHT - _BOTTOM - height:.1f}" '
            f'width="{max(width - 1, 0.5):.1f}" height="{height:.1f}" '
            f'fill="{fill}"><title>{escape(title)}</title></rect>'
        )
    labels = _label(4, 14, "100 %") + _label(4, _HEIGHT - _BOTTOM, f"{100 * least:.0f} %")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}">{labels}{"".join(bars)}</svg>'


def _chart(plan: OperatingPlan, lines: Sequence[tuple[str, str, FloatArray]]) -> str:
    """Return steps over the day, each line with its name and colour."""
    most = max([float(values.max()) for _, _, values in lines], default=0.0) or 1.0
    count = plan.demand.intervals
    across, up = (_WIDTH - _LEFT) / count, (_HEIGHT - _BOTTOM - 20) / most
    base = _HEIGHT - _BOTTOM
    drawn = []
    for name, colour, values in lines:
        points = " ".join(
            f"{_LEFT + x * across:.1f},{base - float(value) * up:.1f}"
            for place, value in enumerate(values)
            for x in (place, place + 1)
        )
        drawn.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{points}">'
            f"<title>{escape(name)}</title></polyline>"
        )
    labels = [_label(4, 30, f"{most:.4g}"), _label(4, base, "0")]
    for part in range(5):
        at_s = plan.demand.step_s * count * part / 4
        anchor = "end" if part == 4 else "start"
        x = _LEFT + (_WIDTH - _LEFT) * part / 4
        labels.append(_label(x, _HEIGHT - 6, plan.curve.clock(at_s), anchor))
    x = float(_LEFT)
    for name, colour, _ in lines:
        labels.append(_label(x, 12, f"— {name}", colour=colour))
        x += 8.0 * len(name) + 30.0
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(labels)}{"".join(drawn)}</svg>'


def _label(x: float, y: float, text: str, anchor: str = "start", colour: str = "#57635d") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _actions(plan: OperatingPlan) -> str:
    rows = "".join(
        f"<tr><td>{escape(clock(plan, a.at_s))}</td><td>{escape(action_text(plan, a))}</td></tr>"
        for a in plan.actions
    )
    return f"<table>{rows}</table>" if rows else "<p>The fleet stays as it is.</p>"


def _types(plan: OperatingPlan) -> str:
    head = "<tr><th>name</th><th>capacity, requests/s</th><th>idle, W</th><th>settings</th></tr>"
    return f"<table>{head}{''.join(map(_type_row, plan.types))}</table>"


def _type_row(kind: ReplicaType) -> str:
    knobs = ", ".join(f"{k}={v}" for k, v in kind.configuration.knobs().items()) or "defaults"
    cells = (kind.name, f"{kind.capacity:.3g}", f"{kind.idle_w:.0f}", knobs)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
