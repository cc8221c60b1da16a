"""What thinking costs, level by level, in sentences and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuner.analysis.recommendation.recommend import Recommendation
from tuner.analysis.tasks.levels import LevelEnergy
from tuner.report.labels import UNKNOWN, number
from tuner.spec.stored import StoredSpec


def thinking_lines(r: Recommendation) -> list[str]:
    """Return a sentence for each level, and how the recommended one is asked for; mostly none."""
    lines = [_sentence(one) for one in r.levels]
    if (steps := r.best.configuration.steps) is not None:
        lines.append(
            f"{steps} steps are no setting of the server; each request asks for them, and gets "
            "other pictures"
        )
    stored = StoredSpec.of(r.study)
    level = r.best.configuration.thinking or stored.default_level
    how = stored.levels.get(level or "")
    if r.levels and how is not None:
        lines.append(
            f"thinking {level} is no setting of the server; with each chat comes {_sent(how)}"
        )
    return lines


def levels_json(levels: Sequence[LevelEnergy]) -> list[dict[str, Any]]:
    """Return the levels as plain data, unrounded."""
    return [asdict(one) for one in levels]


def _sent(how: Mapping[str, Any]) -> str:
    """Return what a client sends for a level, as it is stored."""
    from tuner.load.thinking import Thinking  # few studies have levels, and its model takes long

    asked = Thinking.model_validate(how)
    parts = [json.dumps(asked.chat_fields)] if asked.chat_fields else []
    if asked.system is not None:
        parts.append(f"the system message {json.dumps(asked.system)}")
    return " and ".join(parts) or "nothing"


def _sentence(one: LevelEnergy) -> str:
    name = "as the workload has it" if one.level is None else one.level
    tokens = UNKNOWN if one.tokens is None else f"{one.tokens:,.0f}"
    text = f"thinking {name}: {number(one.energy_per_answer_j)} J an answer of {tokens} tokens"
    if not one.is_baseline and one.energy_multiplier is not None:
        text += f", {number(one.energy_multiplier)} times the baseline's if nothing else changes"
    if one.right is not None:
        text += f"; {100.0 * one.right:.0f} % right, {number(one.energy_per_correct_answer_j)} J "
        text += "per correct answer"
    missed = ", misses the SLO" if one.meets_slo is False else ""
    return f"{text} (trial {one.trial}{missed})"
