"""Records of a measurement log."""

from __future__ import annotations

from datetime import UTC, datetime

from helpers.stored_runs import EMULATED_NIGHT, WRITER
from tuner.configuration import Configuration
from tuner.records import Measurement, Source, Timing
from tuner.store.log.log_records import LoggedResult, LoggedStudy

MEASUREMENT = Measurement(
    {"energy_per_output_token_j": 0.1 + 0.2, "p99_tpot_ms": 5e-324},
    1.5,
    2.5,
    Source.EMULATED,
    Source.MEASURED,
    ended_early="p99_tpot_ms<=40",
)
STUDY = LoggedStudy(EMULATED_NIGHT, {"max_num_seqs": 256, "enforce_eager": False})


def logged(number: int = 0, encoded_raw: bytes | None = b"\x01raw") -> LoggedResult:
    return LoggedResult(
        number=number,
        configuration=Configuration(flags={"max_num_seqs": 64, "x": 1.0, "e": "\u2603"}),
        owner=WRITER,
        started_at=datetime(2026, 3, 1, 22, 0, 0, 1, tzinfo=UTC),
        ended_at=datetime(2026, 3, 1, 21, 0, 0, 2, tzinfo=UTC),  # the clock was set back
        result=MEASUREMENT,
        timing=Timing(12.5, None),
        spent_s=13.0,
        warnings=("hot",),
        encoded_raw=encoded_raw,
    )
