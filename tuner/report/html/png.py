"""The report's figures as PNG files, drawn by the Chromium or Chrome of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tuner.errors import PreflightError
from tuner.report.html.page import FIGURES

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_WIDTH, _HEIGHT = 1280, 800
_SETTLE_MS = 3_000  # of the page's own clock, which runs ahead when nothing happens
_DEADLINE_S = 120.0


def browser_path() -> Path:
    """Return the first known browser on the path; raises `PreflightError` if there is none."""
    for name in BROWSERS:
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise PreflightError(
        "pictures are drawn by Chromium or Chrome, and none is on the PATH; `apt-get install "
        "chromium`, or leave out --png, open the report and use the camera above a figure"
    )


def browser_options(profile: Path) -> list[str]:
    """Return the options under which a page is drawn without a screen, a network or a trace."""
    options = [
        "--headless",
        "--disable-gpu",
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ]
    # Chromium's sandbox refuses root; the only page that it opens is our own file.
    return [*options, "--no-sandbox"] if os.geteuid() == 0 else options


def write_pictures(report: Path, folder: Path) -> list[Path]:
    """Draw each figure of a written report, and its first screen; return the files.

    Raises `PreflightError` if no browser is found or it does not draw.
    """
    browser = browser_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PreflightError(
            f"cannot make '{folder}' ({error.strerror or error}); name another folder with --png"
        ) from None
    address = report.absolute().as_uri()
    pages = {"report": address} | {name: f"{address}#only={name}" for name in FIGURES}
    with tempfile.TemporaryDirectory(  # a child of the browser may write on for a moment
        prefix="tuner-browser-", ignore_cleanup_errors=True
    ) as profile:
        return [
            _draw(browser, Path(profile), page, folder / f"{name}.png")
            for name, page in pages.items()
        ]


def _draw(browser: Path, profile: Path, page: str, picture: Path) -> Path:
    picture.unlink(missing_ok=True)  # so that an old one cannot pass for a new one
    command = [
        str(browser),
        *browser_options(profile),
        f"--window-size={_WIDTH},{_HEIGHT}",
        "--force-device-scale-factor=2",
        f"--virtual-time-budget={_SETTLE_MS}",
        f"--screenshot={picture.absolute()}",
        page,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PreflightError(f"{browser} did not draw '{picture}': {error}") from None
    if not picture.exists():
        said = done.stderr.strip().splitlines()
        raise PreflightError(
            f"{browser} did not draw '{picture}' (exit code {done.returncode}): "
            f"{said[-1] if said else 'it said nothing'}"
        )
    return picture
