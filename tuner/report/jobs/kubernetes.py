"""A study as a Kubernetes Job, with its file and its volume."""

from __future__ import annotations

import math
from typing import Any

from tuner import __version__
from tuner.report.exports.deployment import comments
from tuner.report.exports.yaml_text import yaml_text
from tuner.report.jobs.job import FINAL_EXIT_CODES, GRACE_S, StudyJob

_STATE = "/var/lib/tuner"
_CACHE = "/cache"
_ATTEMPTS = 10
# `exec`: the signals of Kubernetes reach the tuner
_START = """\
if tuner show "$STUDY" --format json >/dev/null 2>&1; then exec tuner resume "$STUDY"; fi
exec tuner run /study/study.yaml
"""


def kubernetes_job(job: StudyJob) -> str:
    """Return objects for `kubectl apply -f FILE`: ConfigMap, PersistentVolumeClaim and Job."""
    notes = (
        f"tuner: study {job.study}, as a Job that goes on where it was stopped",
        "adapt: the image (docs/cluster.md builds it), the storage class of the volume",
        *(f"adapt: the image, or a volume, needs {path}" for path in job.files),
        "a pod that is evicted, drained or killed is replaced; the study goes on from its store",
        f"exit codes {', '.join(map(str, FINAL_EXIT_CODES))} end the Job: another start would "
        "change nothing",
        *_limit_notes(job),
        f"secrets: kubectl create secret generic {_name(job)} --from-literal=HF_TOKEN=...",
        "answer: copy /data/tuner.db out of the volume, and run `tuner recommend` on it anywhere",
        "undo: kubectl delete -f THIS_FILE.yaml, which deletes the volume too",
    )
    objects = (_config_map(job), _volume(job), _job(job))
    return comments(notes) + "---\n".join(yaml_text(each) for each in objects)


def _name(job: StudyJob) -> str:
    return f"tuner-{job.label}"


def _limit_notes(job: StudyJob) -> tuple[str, ...]:
    if not job.sets_limits:
        return ("it changes no setting of a GPU, and does not run as root",)
    return (
        "it sets limits of GPUs: the container is root, with the capability SYS_ADMIN. What is",
        f"found is noted in {_STATE} of the node, so that the next pod there, or",
        "`tuner gpu restore`, puts back what a killed container left",
    )


def _config_map(job: StudyJob) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _name(job)},
        "data": {"study.yaml": job.spec_text},
    }


def _volume(job: StudyJob) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _name(job)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "20Gi"}},
        },
    }


def _job(job: StudyJob) -> dict[str, Any]:
    """Return the Job: a pod that fails for the machine's sake is replaced, another is not."""
    final = list(FINAL_EXIT_CODES)
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "tuner", "operator": "In", "values": final},
        },
    ]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": _name(job)},
        "spec": {
            "backoffLimit": _ATTEMPTS,
            "podFailurePolicy": {"rules": rules},
            "podReplacementPolicy": "Failed",  # two pods would fight for the study's lock
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": _name(job)}},
                "spec": _pod(job),
            },
        },
    }


def _pod(job: StudyJob) -> dict[str, Any]:
    gpus = {} if job.is_emulated else {"nvidia.com/gpu": str(8 if job.gpus is None else job.gpus)}
    mounts = [
        {"name": "study", "mountPath": "/study", "readOnly": True},
        {"name": "data", "mountPath": "/data"},
        {"name": "state", "mountPath": _STATE},
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "cache", "mountPath": _CACHE},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    volumes = [
        {"name": "study", "configMap": {"name": _name(job)}},
        {"name": "data", "persistentVolumeClaim": {"claimName": _name(job)}},
        {"name": "state", **_state_volume(job)},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    token = {"name": _name(job), "key": "HF_TOKEN", "optional": True}
    container = {
        "name": "tuner",
        "image": f"registry.example/tuner:{__version__}",
        "command": ["/bin/sh", "-c", _START],
        "env": [
            {"name": "STUDY", "value": job.study},
            {"name": "TUNER_STORE", "value": "/data/tuner.db"},
            {"name": "TUNER_STATE_DIR", "value": _STATE},
            {"name": "HOME", "value": _CACHE},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}},
        ],
        # whole cores of its own for the load client, where the node's CPU manager is static
        "resources": {
            "requests": {"cpu": "8", "memory": "64Gi"},
            "limits": {"cpu": "8", "memory": "64Gi", **gpus},
        },
        "securityContext": _container_security(job),
        "volumeMounts": mounts,
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "activeDeadlineSeconds": math.ceil(job.lasts_s),
        # a Service named tuner-run would make variables TUNER_RUN_..., which are options here
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "securityContext": {} if job.sets_limits else {"fsGroup": 1000},
        "containers": [container],
        "volumes": volumes,
    }


def _state_volume(job: StudyJob) -> dict[str, Any]:
    if job.sets_limits:
        return {"hostPath": {"path": _STATE, "type": "DirectoryOrCreate"}}
    return {"emptyDir": {}}


def _container_security(job: StudyJob) -> dict[str, Any]:
    if job.sets_limits:
        return {"runAsUser": 0, "capabilities": {"add": ["SYS_ADMIN"]}}
    return {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
