"""A client that is not installed is told before the run."""

from __future__ import annotations

import sys

import pytest

from tuner.api.runs import require_trackers
from tuner.errors import UsageError


@pytest.mark.parametrize(("module", "package"), [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    where: dict[str, str | None] = {"mlflow": None, "wandb": None, module: "nights"}
    with pytest.raises(UsageError, match=f"--{module} needs .*: pip install {package}"):
        require_trackers(**where)
