"""Returned knobs: a configuration with some of its knobs as the baseline has them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tuner.configuration import Configuration
from tuner.store.rows import TrialRow


def returnable(configuration: Configuration, baseline: Configuration) -> list[str]:
    """Return the knobs that differ from the baseline's; the load is not one of them."""
    theirs, load = baseline.knobs(), configuration.offered
    return [
        name
        for name, value in configuration.knobs().items()
        if name not in load and (name not in theirs or theirs[name] != value)
    ]


def returned(configuration: Configuration, name: str, baseline: Configuration) -> Configuration:
    """Return the configuration with one knob as the baseline has it: mostly not set."""
    ours, theirs = configuration.to_json(), baseline.to_json()
    for section, values in ours.items():
        values.pop(name, None)
        if name in theirs[section]:
            values[name] = theirs[section][name]
    return Configuration.from_json(ours)


def key_of(configuration: Configuration) -> str:
    """Return a text that is the same for equal configurations."""
    return json.dumps(configuration.to_json(), sort_keys=True)


def by_configuration(trials: Sequence[TrialRow]) -> dict[str, TrialRow]:
    """Return the ended trials by their configuration; of equal ones a measured one."""
    ended = [t for t in trials if t.measurement is not None or t.failure is not None]
    order = sorted(ended, key=lambda t: t.measurement is not None and t.failure is None)
    return {key_of(t.configuration): t for t in order}
