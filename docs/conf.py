"""The documentation as a site: `make docs` builds it, and a warning is an error."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXAMPLE = Path(__file__).parent / "_example"  # what the pages of docs/exports/ show
sys.path.insert(0, str(ROOT))

import tuner  # noqa: E402

project = "tuner"
author = copyright = "The tuner contributors"
version = release = tuner.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_example", "_build"]
html_theme = "furo"
html_title = f"tuner {release}"
myst_heading_anchors = 3
nitpicky = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# pages that lie above this folder: in it there is an empty page for each
_ABOVE = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")


def _links_within(_app: Any, page: str, source: list[str]) -> None:
    """Read a page above in place of the one here, and let links to it lead here."""
    for above in _ABOVE:
        if page == Path(above).stem.lower():
            source[0] = (ROOT / above).read_text().replace("](docs/", "](")
    for above in _ABOVE:
        here = above.lower()
        source[0] = source[0].replace(f"](../{above})", f"]({here})")
        source[0] = source[0].replace(f"]({above})", f"]({here})")
    if "/" not in page:  # other links out of this folder lead into the sources, which have no page
        source[0] = re.sub(r"\[([^\]]*)\]\(\.\./[^)]+\)", r"\1", source[0])


def write_examples(folder: Path) -> None:
    """Write each export of a small emulated study, as the command prints it."""
    from tuner.api.names import EXPORTS
    from tuner.api.runs import job_text
    from tuner.api.studies import deployment_text

    folder.mkdir(exist_ok=True)
    spec = tuner.StudySpec(
        model="Qwen/Qwen3-8B",
        emulate="H100-SXM",
        request_rate=4,
        slos=["p99_tpot_ms<=25"],
        space="power",
        trials=8,
        window_s=30.0,
        confirm=False,
        study="example",
    )
    with tempfile.TemporaryDirectory() as store_folder:
        store = str(Path(store_folder) / "tuner.db")
        tuner.run(spec, store=store)
        found = tuner.recommend(study="example", store=store)
        for name in EXPORTS:
            (folder / f"{name}.txt").write_text(deployment_text(found, name))
        would = tuner.preview(spec, store=store)
        for name in ("sbatch", "k8s-job"):
            (folder / f"{name}.txt").write_text(job_text(would, name))


def setup(app: Any) -> None:
    """Make the examples before pages are read."""
    os.environ.setdefault("TUNER_CONFIG", "")  # nobody's own settings
    app.connect("builder-inited", lambda _: write_examples(EXAMPLE))
    app.connect("source-read", _links_within)
