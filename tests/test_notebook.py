"""The notebook of docs/ runs as it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOK = Path(__file__).parent.parent / "docs" / "first-study.ipynb"


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # of the kernel's own parts
@pytest.mark.night
def test_the_first_study_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("<StudyResults 'first'" in str(out) for out in shown)
    assert any("application/vnd.plotly.v1+json" in out.get("data", {}) for out in shown)
