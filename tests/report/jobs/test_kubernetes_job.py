"""The Job is Kubernetes' own, ends when it should, and has no more rights than it needs."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import yaml
from helpers.job_cases import Make

from tuner.report.jobs.job import StudyJob
from tuner.report.jobs.kubernetes import kubernetes_job

VERSION = "1.34"


def objects(job: StudyJob) -> dict[str, Any]:
    return {o["kind"]: o for o in yaml.safe_load_all(kubernetes_job(job))}


def pod(job: StudyJob) -> dict[str, Any]:
    return dict(objects(job)["Job"]["spec"]["template"]["spec"])


def test_every_object_is_valid(make: Make) -> None:
    jobs = (make(), make(emulate=None, gpus=2), make(emulate=None, allow_gpu_settings=True))
    for job in jobs:
        assert list(objects(job)) == ["ConfigMap", "PersistentVolumeClaim", "Job"]
        for each in objects(job).values():
            kubernetes_validate.validate(each, VERSION, strict=True)
            assert len(each["metadata"]["name"]) <= 63


def test_only_limits_take_root(make: Make) -> None:
    plain = pod(make(emulate=None))["containers"][0]["securityContext"]
    assert plain["runAsNonRoot"] and plain["capabilities"] == {"drop": ["ALL"]}
    limits = pod(make(emulate=None, allow_gpu_settings=True))
    security = limits["containers"][0]["securityContext"]
    assert security == {"runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}}
    (state,) = [v for v in limits["volumes"] if v["name"] == "state"]
    assert state["hostPath"]["path"] == "/var/lib/tuner"  # the node's, for the next pod there


def test_it_has_time_to_put_back_and_goes_on_after_a_disruption(make: Make) -> None:
    spec = objects(make())["Job"]["spec"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 300
    ignored, failed = spec["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"
    assert failed["onExitCodes"]["values"] == [2, 4, 5]  # usage, nothing feasible, a person
    start = spec["template"]["spec"]["containers"][0]["command"][-1]
    assert "exec tuner resume" in start and "exec tuner run /study/study.yaml" in start


def test_gpus(make: Make) -> None:
    def asked(job: StudyJob) -> str | None:
        found: str | None = pod(job)["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
        return found

    assert asked(make()) is None  # emulated
    assert asked(make(emulate=None, gpus=2)) == "2"
    assert asked(make(emulate=None, gpus=2, cards=3)) == "6"
    assert asked(make(emulate=None)) == "8"
