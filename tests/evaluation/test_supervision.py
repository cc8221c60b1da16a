"""What supervises a run; the guardian and the repair have tests of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.scripted import ScriptedEvaluator

from tuner.evaluation.factory import RunContext
from tuner.evaluation.supervision import supervised


async def test_an_evaluator_that_changes_nothing_is_closed_too(tmp_path: Path) -> None:
    """Its meter may be a process."""
    evaluator, context = ScriptedEvaluator(), RunContext("tag", tmp_path)
    assert not evaluator.needs_guardian
    async with supervised(evaluator, context):
        assert evaluator.closed == 0
    assert evaluator.closed == 1
    with pytest.raises(ValueError, match="in the middle"):
        async with supervised(evaluator, context):
            raise ValueError("in the middle")
    assert evaluator.closed == 2
