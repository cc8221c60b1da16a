"""The load under which a trial was measured, in words."""

from __future__ import annotations

from dataclasses import asdict, replace

from tuner.configuration import Configuration
from tuner.errors import TunerError
from tuner.records import Load
from tuner.store.rows import StudyIdentity


def offered_text(load: Load) -> str:
    """Return a load."""
    if load.concurrency is not None:
        return f"closed loop, {load.concurrency} requests under way"
    return f"open loop, {load.request_rate:g} requests/s"


def load_text(study: StudyIdentity, configuration: Configuration) -> str:
    """Return the load: the configuration's own knob, else what the study was told."""
    asked = {**study.spec_json, **configuration.load}
    rate, concurrency = asked.get("request_rate"), asked.get("concurrency")
    if "concurrency" in configuration.load or (rate is None and concurrency is not None):
        return offered_text(Load(concurrency=concurrency))
    if rate is not None:
        share = _share(study, configuration)
        return f"{offered_text(Load(request_rate=float(rate)))}{share}"
    return "the workload's own load"


def resolved_load_text(study: StudyIdentity, configuration: Configuration) -> str:
    """Return the load; where the study asked for none, what its workload asks for, if unchanged."""
    from tuner.load.workload import load_workload

    asked = {**study.spec_json, **configuration.load}
    if asked.get("request_rate") is None and asked.get("concurrency") is None:
        try:
            workload = load_workload(str(asked.get("workload", study.workload_name)))
        except TunerError:  # its file may be gone by now
            return load_text(study, configuration)
        if workload.sha256 == study.workload_sha256:
            own = {k: v for k, v in asdict(workload.default_load).items() if v is not None}
            return load_text(study, replace(configuration, load=own))
    return load_text(study, configuration)


def _share(study: StudyIdentity, configuration: Configuration) -> str:
    """Return which share of the default's capacity the rate is, if it was asked for as one."""
    capacity = study.spec_json.get("capacity")
    if capacity is None or "request_rate" in configuration.load:
        return ""
    most = float(capacity["request_rate"])
    share = float(study.spec_json["request_rate"]) / most
    return f", {share:.2g} of the {most:.3g} that the default sustains"
