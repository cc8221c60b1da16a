"""A knob at the end of its range is said if energy falls towards it."""

from __future__ import annotations

from helpers.night_rows import values
from helpers.records import trial_row

from tuner.analysis.recommendation.range_edges import edges
from tuner.configuration import Configuration
from tuner.slo import Slo
from tuner.store import TrialRow

SLOS = (Slo("p99_tpot_ms", 50.0),)
DEFAULT = trial_row(0, values(0.4, 20.0), Configuration())


def at(number: int, clock_mhz: int, energy_j: float, tpot_ms: float = 30.0) -> TrialRow:
    return trial_row(
        number, values(energy_j, tpot_ms), Configuration(device={"sm_clock_mhz": clock_mhz})
    )


def test_energy_that_falls_towards_the_end_is_said() -> None:
    trials = [DEFAULT, at(1, 780, 0.25), at(2, 900, 0.28), at(3, 1200, 0.3)]
    (said,) = edges(trials[1], trials, SLOS, DEFAULT)
    assert "sm_clock_mhz=780 is the lowest" in said


def test_inside_the_range_or_where_it_is_flat_nothing_is_said() -> None:
    trials = [DEFAULT, at(1, 780, 0.25), at(2, 900, 0.251), at(3, 1200, 0.3)]
    assert edges(trials[1], trials, SLOS, DEFAULT) == []
    assert edges(trials[2], trials, SLOS, DEFAULT) == []
    missed = [DEFAULT, at(1, 780, 0.25), at(2, 900, 0.28, tpot_ms=60.0)]
    assert edges(missed[1], missed, SLOS, DEFAULT) == []  # the next is no alternative


def test_another_precision_says_nothing_of_a_limit() -> None:
    """On an H200 a lower memory share with a bf16 cache was blamed for what the cache costs."""

    def with_cache(number: int, share: float, energy_j: float, dtype: str) -> TrialRow:
        flags = {"gpu_memory_utilization": share, "kv_cache_dtype": dtype}
        return trial_row(number, values(energy_j, 12.0), Configuration(flags=flags))

    trials = [DEFAULT, with_cache(1, 0.92, 0.077, "fp8"), with_cache(2, 0.83, 0.095, "auto")]
    assert edges(trials[1], trials, SLOS, DEFAULT) == []
    trials.append(with_cache(3, 0.83, 0.095, "fp8"))
    assert len(edges(trials[1], trials, SLOS, DEFAULT)) == 1


def test_another_clock_says_nothing_of_a_limit() -> None:
    """Fewer sequences at a higher clock do not show that more sequences save energy."""

    def tried(number: int, seqs: int, clock_mhz: int, energy_j: float) -> TrialRow:
        knobs = Configuration(flags={"max_num_seqs": seqs}, device={"sm_clock_mhz": clock_mhz})
        return trial_row(number, values(energy_j, 30.0), knobs)

    trials = [DEFAULT, tried(1, 1024, 900, 0.25), tried(2, 512, 1600, 0.32), tried(3, 64, 800, 0.3)]
    assert edges(trials[1], trials, SLOS, DEFAULT) == []
    trials.append(tried(4, 512, 960, 0.27))
    (said,) = edges(trials[1], trials, SLOS, DEFAULT)
    assert "max_num_seqs=1024 is the highest" in said
