import numpy as np

from tuner.emulator.engine.step_log import StepLog


def test_it_grows_and_keeps_everything_in_order() -> None:
    log = StepLog()
    ends = np.arange(1.0, 9_001.0)
    log.append(0.5, 1.0, 1, 2, 1980.0)
    log.extend(ends, 10 * ends, 3, 4, 1500.0)
    log.append(9_001.0, 90_010.0, 5, 6, 1395.0)
    assert log.length == 9_002
    np.testing.assert_array_equal(log.ends_s, [0.5, *ends, 9_001.0])
    np.testing.assert_array_equal(log.energies_j[1:-1], 10 * ends)
    assert (log.running[0], log.running[1], log.running[-1]) == (1, 3, 5)
    assert (log.clocks_mhz[0], log.clocks_mhz[-2], log.clocks_mhz[-1]) == (1980, 1500, 1395)
    assert (log.waiting[0], log.waiting[-2], log.waiting[-1]) == (2, 4, 6)
