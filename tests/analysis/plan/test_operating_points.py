"""Operating points of a study: a plan does not let thinking, or the steps of pictures, change."""

from __future__ import annotations

from helpers.night_rows import values
from helpers.records import trial_row

from tuner.analysis.plan.operating_points import asking_alike
from tuner.configuration import Configuration, Value
from tuner.store import TrialRow


def trial(number: int, **load: Value) -> TrialRow:
    flags = {"max_num_seqs": number + 1}
    return trial_row(number, values(0.3, 30.0), Configuration(flags, load=load))


def test_what_asks_as_the_recommendation_does_may_run() -> None:
    best, same, default = trial(0, thinking="off"), trial(1, thinking="off"), trial(2)
    other = trial(3, thinking="high", request_rate=2.0)
    assert asking_alike([best, same, default, other]) == [best, same]
    assert asking_alike([default, trial(4, request_rate=4.0), best]) == [
        default,
        trial(4, request_rate=4.0),
    ]
    assert asking_alike([trial(0, steps=20), trial(1, steps=28)]) == [trial(0, steps=20)]
