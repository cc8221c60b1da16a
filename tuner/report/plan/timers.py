"""A plan as cron lines, or as systemd timers.

Each replica is an instance of a unit, `NAME@1.service` and so on; `tuner recommend --format
systemd` writes the unit, to be saved as `NAME@.service` with `--port=800%i` and the GPUs of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuner.analysis.plan.fleet import Move
from tuner.analysis.plan.operating_plan import OperatingPlan
from tuner.errors import PreflightError
from tuner.host.durable_files import replacing
from tuner.report.plan.steps import Step, clock_of, steps, unit_name, zone_of

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_FIRST_PORT = 8000


def write_timers(plans: Sequence[OperatingPlan], path: Path) -> None:
    """Write FILE.cron, or a folder of systemd units, of plans for the same hours.

    Raises `PreflightError` if a file cannot be written, `UsageError` for a plan that is neither of
    a day nor of a week.
    """
    if path.suffix == ".cron":
        write_text(path, cron_text(plans))
        return
    for name, text in systemd_units(plans).items():
        write_text(path / name, text)


def write_text(path: Path, text: str) -> Path:
    """Write a file, whole or not at all. Raises `PreflightError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            new.write(text.encode())
    except OSError as error:
        raise PreflightError(f"cannot write '{path}' ({error.strerror or error})") from None
    return path


def cron_text(plans: Sequence[OperatingPlan]) -> str:
    """Return lines for /etc/cron.d."""
    zone = zone_of(plans[0])
    lines = [
        "# Operating plan. Copy to /etc/cron.d/ (without a dot in the name); times are "
        f"{zone or 'local'}.",
        *([f"CRON_TZ={zone}"] if zone else []),
    ]
    for plan in plans:
        for step in steps(plan):
            hour, minute, day = clock_of(plan, step.at_s)
            weekday = "*" if day is None else str(day)
            lines.append(f"{minute} {hour} * * {weekday} root {command(plan, step)}")
    return "\n".join(lines) + "\n"


def systemd_units(plans: Sequence[OperatingPlan]) -> dict[str, str]:
    """Return the text of each unit by its file name: a timer and a service for each moment."""
    found: dict[str, str] = {}
    moments: dict[str, list[str]] = {}
    for plan in plans:
        for step in steps(plan):
            hour, minute, day = clock_of(plan, step.at_s)
            date = "*-*-*" if day is None else f"{_DAYS[day]} *-*-*"
            when = f"{date} {hour:02d}:{minute:02d}:00 {zone_of(plan)}".rstrip()
            moments.setdefault(when, []).append(command(plan, step))
    for number, (when, own) in enumerate(moments.items(), 1):
        name = f"tuner-plan-{number:03d}"
        runs = "".join(f"ExecStart=/bin/sh -c '{one}'\n" for one in own)
        found[f"{name}.service"] = (
            f"[Unit]\nDescription=Operating plan, {when}\n\n[Service]\nType=oneshot\n{runs}"
        )
        found[f"{name}.timer"] = (
            f"[Unit]\nDescription=Operating plan, {when}\n\n[Timer]\nOnCalendar={when}\n"
            "AccuracySec=1s\n\n[Install]\nWantedBy=timers.target\n"
        )
    return found


def command(plan: OperatingPlan, step: Step) -> str:
    """Return the shell command of a step."""
    kind = plan.types[step.kind]
    unit = f"{unit_name(kind)}@{step.replica}.service"
    if step.move is Move.START:
        return f"systemctl start --no-block {unit}"
    if step.move in (Move.STOP, Move.DROP):
        return f"systemctl stop --no-block {unit}"
    url = f"http://127.0.0.1:{_FIRST_PORT + step.replica}"
    level = 1 if kind.sleep is None else kind.sleep.level
    if step.move is Move.SLEEP:
        return f'curl -fsS -X POST "{url}/sleep?level={level}"'
    if level == 1:
        return f"curl -fsS -X POST {url}/wake_up"
    reload = (
        f'curl -fsS -X POST {url}/collective_rpc -H "Content-Type: application/json" '
        '-d "{\\"method\\": \\"reload_weights\\"}"'
    )
    return (
        f'curl -fsS -X POST "{url}/wake_up?tags=weights" && {reload} && '
        f'curl -fsS -X POST "{url}/wake_up?tags=kv_cache"'
    )
