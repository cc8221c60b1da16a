"""What a run would do, for a terminal and for programs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from tuner.analysis.load_text import offered_text
from tuner.report.terminal.layout.narrow import Parts
from tuner.report.terminal.status_table import duration
from tuner.study.listener import NullListener, Progress
from tuner.study.preview.run_preview import RunPreview

_HEADROOM_CHECKS = "a stress test, idle power and the headroom"


def show_preview(console: Console, found: RunPreview, now: datetime) -> None:
    """Print what a run that begins at `now` would do."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(found, now):
        table.add_row(name, Parts(value))
    console.print(table, highlight=False)


class PreviewListener(NullListener):
    """Prints what a run does when it starts, once nothing is in its way."""

    def __init__(self, console: Console, found: RunPreview) -> None:
        self._console = console
        self._found = found

    def study_started(self, name: str, progress: Progress) -> None:
        """Print it."""
        show_preview(self._console, self._found, datetime.now(UTC))


def _lines(found: RunPreview, now: datetime) -> list[tuple[str, str]]:
    spec = found.spec
    share = spec.request_rate_share
    load = offered_text(found.load) if share is None else f"{share:g} of the default's capacity"
    lines = [
        ("model", f"{spec.model}, workload {spec.workload}, {load}"),
        ("SLO", ", ".join(map(str, spec.slos)) or "none: the least energy, however slow"),
        ("minimises", ", ".join(map(str, spec.objectives))),
        *_knob_lines(found),
        ("GPUs", _gpus(found)),
        ("a window", _windows(found)),
        *([("", found.window_reason)] if found.window_reason is not None else []),
        ("evaluations", _evaluations(found)),
    ]
    if after := _after(found):
        lines.append(("then", after))
    return [*lines, ("ends", _ends(found, now))]


def _knob_lines(found: RunPreview) -> list[tuple[str, str]]:
    return [
        ("searches" if at == 0 else "", f"{knob.name}: {knob.range} ({_how(knob.kind)})")
        for at, knob in enumerate(found.knobs)
    ]


def _how(kind: str) -> str:
    return {
        "live": "changed in the running server",
        "launch": "needs a launch",
        "device": "a GPU's setting",
    }.get(kind, kind)


def _gpus(found: RunPreview) -> str:
    spec = found.spec
    if spec.emulate is not None:
        return f"emulated {spec.emulate}; no real GPU is touched"
    count = "this machine's" if found.gpus is None else f"{found.gpus}"
    if spec.has_cards:
        workers = spec.cards if isinstance(spec.cards, int) else "all"
        count += f" on each of {workers} cards"
    if found.device_knobs:
        changed = " and ".join(found.device_knobs)
        return f"{count}; {changed} are changed, and put back at the end, on a signal or a crash"
    return f"{count}; no setting of theirs is changed"


def _windows(found: RunPreview) -> str:
    shortest_s, longest_s = found.window_s
    length = f"{shortest_s:g} s" if shortest_s == longest_s else f"{shortest_s:g}-{longest_s:g} s"
    if found.spec.base_url is not None:
        return f"{length}; nothing is launched"
    known = "the median of this store's" if found.launch_is_measured else "assumed"
    forked = "; those of the search are forked, in less" if found.spec.fork_servers else ""
    return f"{length}; a launch {duration(found.launch_s)} ({known}){forked}"


def _evaluations(found: RunPreview) -> str:
    fewest, most = found.evaluations
    count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    if found.spec.base_url is not None or all(knob.kind != "launch" for knob in found.knobs):
        return f"{count}, without a launch for each"
    return f"{count}, each with a launch only where a knob needs it"


def _after(found: RunPreview) -> str:
    if found.confirm_window_s is None:
        return ""
    text = f"the front again, in windows of {found.confirm_window_s:g} s on other traffic"
    if found.most_repeats is not None:
        text += f": at most {found.most_repeats}, beside the default's"
    else:
        text += f"; at most {duration(found.kept_s)} are kept for what follows the search"
    if found.enough_hours is not None:
        text += f"; too little to confirm anything: take --hours {found.enough_hours:g}"
    return f"{text}; {_HEADROOM_CHECKS}" if found.spec.makes_checks else text


def _ends(found: RunPreview, now: datetime) -> str:
    first_s, last_s = found.lasts_s
    if found.is_virtual:
        return f"after {_span(first_s, last_s)} of virtual time, which takes minutes here"
    first, last = found.ends_at(now)
    when = f"about {last:%a %H:%M} UTC"
    if first_s < 0.9 * last_s:
        when = f"between {first:%a %H:%M} and {last:%a %H:%M} UTC"
    return f"{when} (after {_span(first_s, last_s)})"


def _span(first_s: float, last_s: float) -> str:
    if first_s > 0.9 * last_s:
        return duration(last_s)
    return f"{duration(first_s)} to {duration(last_s)}"


def preview_json(found: RunPreview, now: datetime) -> dict[str, Any]:
    """Return the preview for programs; times in s, UTC."""
    first, last = found.ends_at(now)
    return {
        "spec": found.spec.model_dump(mode="json"),
        "space": found.space,
        "knobs": [asdict(knob) for knob in found.knobs],
        "load": asdict(found.load),
        "gpus": found.gpus,
        "gpu_settings_changed": list(found.device_knobs),
        "launch_s": found.launch_s,
        "launch_is_measured": found.launch_is_measured,
        "window_s": list(found.window_s),
        "window_reason": found.window_reason,
        "confirm_window_s": found.confirm_window_s,
        "evaluations": list(found.evaluations),
        "most_repeats": found.most_repeats,
        "enough_hours": found.enough_hours,
        "virtual": found.is_virtual,
        "lasts_s": list(found.lasts_s),
        "ends_at": None if found.is_virtual else [_iso(first), _iso(last)],
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
