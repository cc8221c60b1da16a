"""Studies side by side as one HTML file that loads nothing."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from pathlib import Path

from tuner.analysis.side_by_side import SideBySide
from tuner.report.html.page import write_text
from tuner.report.side_by_side import Row, how_to_read, rows_of


def write_side_by_side(found: SideBySide, path: Path) -> int:
    """Write the comparison, whole or not at all; return its size in bytes."""
    return write_text(_page(found), path)


def _page(found: SideBySide) -> str:
    names = [study.identity.name for study in found.studies]
    title = escape(" · ".join(names))
    style = files("tuner.report.html").joinpath("page.css").read_text(encoding="utf-8")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(_row(row, len(names)) for row in rows_of(found))
    reasons = [f"{s.identity.name}: {s.why_none}" for s in found.studies if s.why_none is not None]
    legend = how_to_read(found)
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*reasons, *found.notes))
    return f"""<!doctype html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title} · tuner</title>
<style>{style}
td, tbody th {{ vertical-align: top; white-space: pre-line; min-width: 9em; }}
tbody th {{ font-weight: 450; color: var(--soft); }}
tr.group th {{ font-weight: 650; color: var(--ink); padding-top: 14px; }}
</style>
</head>
<body>
<header><strong class="brand">tuner</strong><span class="study">{title}</span></header>
<main>
<section>
<h2>Side by side</h2>
<p>{escape(legend[0].upper() + legend[1:])}.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Comparison of studies">
<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>
<ul>{notes}</ul>
</section>
</main>
</body>
</html>
"""


def _row(row: Row, columns: int) -> str:
    if not row.cells:
        return (
            f'<tr class="group"><th scope="rowgroup" colspan="{columns + 1}">'
            f"{escape(row.name)}</th></tr>"
        )
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells)
    return f'<tr><th scope="row">{escape(row.name)}</th>{cells}</tr>'
