"""A plan as Kubernetes objects: CronJobs that scale Deployments, or KEDA's cron triggers.

A Deployment cannot let one of its pods sleep, so replicas that sleep stay running there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tuner.analysis.plan.operating_plan import OperatingPlan
from tuner.report.exports.yaml_text import yaml_text
from tuner.report.plan.steps import clock_of, offset_s, period_of, unit_name, zone_of
from tuner.report.plan.timers import write_text

_ACCOUNT = "tuner-plan"
_IMAGE = "registry.k8s.io/kubectl:v1.34.0"


def write_kubernetes(plans: Sequence[OperatingPlan], path: Path) -> Path:
    """Write CronJobs with the account that they need. Raises `PreflightError`."""
    objects = [*_account(), *(job for plan in plans for job in _cron_jobs(plan))]
    names = [unit_name(kind) for plan in plans for kind in plan.types]
    notes = (
        "# Operating plan: kubectl apply -f THIS_FILE. It scales the Deployments "
        f"{', '.join(names)}.\n"
    )
    return write_text(path, notes + "---\n".join(yaml_text(each) for each in objects))


def write_keda(plans: Sequence[OperatingPlan], path: Path) -> Path:
    """Write a ScaledObject for each Deployment. Raises `PreflightError`."""
    objects = [scaled for plan in plans for scaled in scaled_objects(plan)]
    return write_text(path, "---\n".join(yaml_text(each) for each in objects))


def scaled_objects(plan: OperatingPlan) -> list[dict[str, Any]]:
    """Return KEDA's objects: between two times of day, so many replicas."""
    found = []
    for place, kind in enumerate(plan.types):
        blocks = list(_blocks(plan, place))
        counts = [count for _, _, count in blocks]
        triggers = [
            {
                "type": "cron",
                "metadata": {
                    "timezone": zone_of(plan) or "Etc/UTC",
                    "start": _schedule(plan, start_s),
                    "end": _schedule(plan, end_s),
                    "desiredReplicas": str(count),
                },
            }
            for start_s, end_s, count in blocks
            if count > min(counts)
        ]
        if not any(counts):
            continue
        if not triggers:  # the same all day
            triggers = [_all_day(plan, counts[0])]
        spec = {
            "scaleTargetRef": {"name": unit_name(kind)},
            "minReplicaCount": min(counts),
            "maxReplicaCount": max(counts),
            "cooldownPeriod": 0,
            "triggers": triggers,
        }
        found.append(
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": unit_name(kind)},
                "spec": spec,
            }
        )
    return found


def _all_day(plan: OperatingPlan, count: int) -> dict[str, Any]:
    zone = zone_of(plan) or "Etc/UTC"
    times = {"timezone": zone, "start": "0 0 * * *", "end": "59 23 * * *"}
    return {"type": "cron", "metadata": {**times, "desiredReplicas": str(count)}}


def _blocks(plan: OperatingPlan, place: int) -> Iterator[tuple[float, float, int]]:
    """Yield from when until when a type has so many replicas; one begins a start earlier."""
    counts = (plan.running[:, place] + plan.asleep[:, place]).tolist()
    lead_s, step_s, period_s = plan.types[place].start_s, plan.demand.step_s, period_of(plan)
    for count, group in groupby(range(len(counts)), key=counts.__getitem__):
        own = list(group)
        more = count > counts[own[0] - 1]
        start_s = offset_s(plan) + own[0] * step_s - (lead_s if more else 0.0)
        end_s = offset_s(plan) + (own[-1] + 1) * step_s
        yield start_s % period_s, end_s % period_s, count


def _cron_jobs(plan: OperatingPlan) -> Iterator[dict[str, Any]]:
    for place, kind in enumerate(plan.types):
        name = unit_name(kind)
        for number, (start_s, _, count) in enumerate(_blocks(plan, place), 1):
            container = {
                "name": "scale",
                "image": _IMAGE,
                "args": ["scale", f"deployment/{name}", f"--replicas={count}"],
            }
            pod = {
                "serviceAccountName": _ACCOUNT,
                "restartPolicy": "OnFailure",
                "containers": [container],
            }
            zone = zone_of(plan)
            yield {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "metadata": {"name": f"{name[:44]}-{number:03d}"},
                "spec": {
                    "schedule": _schedule(plan, start_s),
                    **({"timeZone": zone} if zone else {}),
                    "concurrencyPolicy": "Forbid",
                    "jobTemplate": {"spec": {"template": {"spec": pod}}},
                },
            }


def _schedule(plan: OperatingPlan, at_s: float) -> str:
    hour, minute, day = clock_of(plan, at_s)
    return f"{minute} {hour} * * {'*' if day is None else day}"


def _account() -> list[dict[str, Any]]:
    rules = [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments", "deployments/scale"],
            "verbs": ["get", "patch", "update"],
        }
    ]
    subject = {"kind": "ServiceAccount", "name": _ACCOUNT}
    role = {"kind": "Role", "name": _ACCOUNT, "apiGroup": "rbac.authorization.k8s.io"}
    group = "rbac.authorization.k8s.io/v1"
    meta = {"name": _ACCOUNT}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": group, "kind": "Role", "metadata": meta, "rules": rules},
        {
            "apiVersion": group,
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": role,
            "subjects": [subject],
        },
    ]
