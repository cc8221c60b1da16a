"""Load text: the load of a trial in words, such as `open loop, 4 requests/s`."""

from __future__ import annotations

from dataclasses import asdict, replace

from tuner.configuration import Configuration
from tuner.errors import TunerError
from tuner.records import Load
from tuner.spec.stored import StoredSpec
from tuner.store.rows import StudyIdentity


def offered_text(load: Load) -> str:
    """Return a load in words."""
    if load.concurrency is not None:
        return f"closed loop, {load.concurrency} requests under way"
    return f"open loop, {load.request_rate:g} requests/s"


def is_open_loop(study: StudyIdentity, configuration: Configuration) -> bool:
    """Say whether requests come at a rate, which no configuration changes; False if unknown."""
    load = studied_load(study, configuration)
    return load is not None and load.request_rate is not None


def studied_load(study: StudyIdentity, configuration: Configuration | None = None) -> Load | None:
    """Return the load of a study, or of a configuration of it; None if that is unknown."""
    own = Configuration() if configuration is None else configuration
    return _load(StoredSpec.of(study), own) or _workloads_own(study)


def load_text(study: StudyIdentity, configuration: Configuration) -> str:
    """Return the load in words: that of the configuration's load knob, else the study's."""
    asked = StoredSpec.of(study)
    load = _load(asked, configuration)
    if load is None:
        return "the workload's own load"
    return f"{offered_text(load)}{_share(asked, configuration)}"


def resolved_load_text(study: StudyIdentity, configuration: Configuration) -> str:
    """Return the load in words; without one in the study, its workload's, if that is unchanged."""
    own = _workloads_own(study)
    if _load(StoredSpec.of(study), configuration) is None and own is not None:
        knobs = {name: value for name, value in asdict(own).items() if value is not None}
        return load_text(study, replace(configuration, load=knobs))
    return load_text(study, configuration)


def _workloads_own(study: StudyIdentity) -> Load | None:
    """Return the load that the study's workload states; None if that has changed or is gone."""
    from tuner.load.workload import load_workload

    stored = StoredSpec.of(study)
    if stored.workload_load is not None:
        return stored.workload_load
    try:
        workload = load_workload(stored.workload or study.workload_name)
    except TunerError:
        return None
    return workload.default_load if workload.sha256 == study.workload_sha256 else None


def _load(asked: StoredSpec, configuration: Configuration) -> Load | None:
    """Return the load that the configuration or the study asks for; None leaves the workload's."""
    own = configuration.load
    if "concurrency" in own:
        return Load(concurrency=int(own["concurrency"]))
    if "request_rate" in own:
        return Load(request_rate=float(own["request_rate"]))
    return asked.load


def _share(asked: StoredSpec, configuration: Configuration) -> str:
    """Return which share of the default's capacity the rate is, if it was asked for as one."""
    rate = None if asked.load is None else asked.load.request_rate
    if asked.capacity is None or rate is None or configuration.offered:
        return ""
    most = asked.capacity.request_rate
    return f", {rate / most:.2g} of the {most:.3g} that the default sustains"
