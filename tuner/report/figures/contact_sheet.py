"""Contact sheet: what configurations made of the same prompts and seeds, beside the baseline's."""

from __future__ import annotations

import base64
from html import escape

from tuner.analysis.recommendation.recommend import Recommendation
from tuner.analysis.report_data.report_data import ReportData
from tuner.pictures import PictureChange, Pictures, mean_ssim
from tuner.spec.stored import StoredSpec

_MOST_TRIALS = 5  # beside the baseline: a page stays below a megabyte for them
_MOST_JPEG_BYTES = 64 * 2**10  # a thumbnail has a tenth
_JPEG = b"\xff\xd8\xff"
_PROMPT_CHARACTERS = 120


def contact_sheet(report: ReportData) -> str:
    """Return the sheet as HTML: a row a prompt, a column a trial; empty without pictures."""
    columns = _columns(report)
    if not columns:
        return ""
    baseline = StoredSpec.of(report.study).baseline_row
    heads = [f"<th scope=col>{escape(baseline)}</th>"]
    heads += [f"<th scope=col>{_head(number, shown)}</th>" for number, shown in columns]
    first = columns[0][1]
    rows = "".join(_row(at, one, columns) for at, one in enumerate(first))
    frames = max(one.frames for one in first)
    of = f"of each video {frames} frames were compared, and its first is shown; " * (frames > 1)
    return (
        '<section id="pictures"><h2>Pictures of the same prompts and seeds</h2>'
        '<div class="scroll"><table class="sheet"><thead><tr><th scope=col>prompt</th>'
        f"{''.join(heads)}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p>Shown small; compared at full size: {of}SSIM is 1 and PSNR 100 dB for equal pictures. "
        "Both say how much a picture changed, not whether it got worse: look at them.</p></section>"
    )


def _columns(report: ReportData) -> list[tuple[int, Pictures]]:
    """Return trials with pictures, the recommended one first; not the baseline."""
    found: Recommendation | None = report.recommendation
    best = None if found is None else found.best.number
    baseline = report.confirmed.baseline
    own = None if baseline is None else baseline.number
    having = [
        (number, known.pictures)
        for number, known in report.confirmed.confirmations.items()
        if known.pictures and number != own
    ]
    having.sort(key=lambda one: (one[0] != best, one[0]))
    return having[:_MOST_TRIALS]


def _head(number: int, pictures: Pictures) -> str:
    return f"trial {number}<br>mean SSIM {mean_ssim(pictures):.3f}"


def _row(at: int, first: PictureChange, columns: list[tuple[int, Pictures]]) -> str:
    prompt = first.prompt[:_PROMPT_CHARACTERS]
    cells = [f"<td>{_image(first.before, f'the baseline: {prompt}')}</td>"]
    for number, pictures in columns:
        if at < len(pictures):
            one = pictures[at]
            said = f"SSIM {one.ssim:.3f}, PSNR {one.psnr_db:.0f} dB"
            image = _image(one.after, f"trial {number}: {prompt}")
            cells.append(f"<td>{image}<br><small>{said}</small></td>")
        else:
            cells.append("<td></td>")
    return f"<tr><th scope=row>{escape(prompt)}</th>{''.join(cells)}</tr>"


def _image(jpeg: bytes, said: str) -> str:
    if not jpeg.startswith(_JPEG) or len(jpeg) > _MOST_JPEG_BYTES:
        return "not shown"
    data = base64.b64encode(jpeg).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(said)}">'
