"""A study, a trial and its raw run as the tests of the store write them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from helpers.records import measured, raw_run, request_record, study_identity
from tuner.configuration import Configuration
from tuner.records import PowerTimeline, RawRun, RequestState, ServerTimeline, Source
from tuner.store import TrialOwner

EMULATED_NIGHT = study_identity(
    created_at=datetime(2026, 3, 1, 22, 0, 0, 123456, tzinfo=UTC),
    space_name="default",
    evaluation="virtual",
    server_version="emulator",
    gpu="H100",
    driver=None,
    energy_source=Source.EMULATED,
    latency_source=Source.EMULATED,
    budget_trials=40,
    spent_s=0.0,
    spec_json={"seed": 7, "knobs": [{"name": "max_num_seqs", "low": 8}], "x": None},
    finished_at=None,
)
WRITER = TrialOwner(pid=4242, boot_id="b007", host="node", run_tag="r1")
CONFIGURATION = Configuration(flags={"max_num_seqs": 64}, device={"power_limit_w": 450.0})
MEASUREMENT = measured(
    {"energy_per_output_token_j": 0.31, "p99_tpot_ms": 41.5}, Source.EMULATED, Source.EMULATED
)


def small_run() -> RawRun:
    """Return a run of one request, which failed."""
    failed = request_record(
        0,
        0.5,
        [0.7, 0.8],
        RequestState.FAILED,
        prompt_tokens=3,
        ended_s=0.9,
        error="reset by peer",
    )
    times_s = np.array([0.0, 1.0])
    power = PowerTimeline(
        times_s, np.array([300.0, 310.0]), np.array([0.0, 305.0]), Source.MEASURED
    )
    server = ServerTimeline(times_s, times_s, times_s)
    return raw_run([failed], power, server, window_s=(0.1, 0.9))
