"""A configuration as Kubernetes objects: vLLM, and what sets the limits on its nodes."""

from __future__ import annotations

from typing import Any

from tuner.report.exports.deployment import CACHE_FOLDER, PORT, Deployment, comments
from tuner.report.exports.limits import ALL_GPUS, READY_FILE, found_folder, hold
from tuner.report.exports.vllm import withheld_notes
from tuner.report.exports.yaml_text import yaml_text

_NODE_LABEL = "tuner/gpu-limits"


def kubernetes_objects(deployment: Deployment) -> str:
    """Return objects for `kubectl apply -f FILE`."""
    d = deployment
    objects = [*([limits_daemon_set(d)] if d.has_limits else []), _server(d), _service(d)]
    notes = (
        *d.about,
        *withheld_notes(d),
        *node_notes(d),
        "use: kubectl apply -f THIS_FILE.yaml",
        "undo: kubectl delete -f THIS_FILE.yaml",
        f"secrets: kubectl create secret generic {d.name} --from-literal=HF_TOKEN=...",
        *(("adapt: pin the version of the image",) if d.release is None else ()),
    )
    return comments(notes) + "---\n".join(yaml_text(each) for each in objects)


def node_notes(deployment: Deployment) -> tuple[str, ...]:
    """Return what has to be known of the nodes whose GPUs are limited."""
    d = deployment
    if not d.has_limits:
        return ()
    return (
        f"before: kubectl label node NODE {_NODE_LABEL}={d.name}",
        "the limits are set on ALL GPUs of these nodes, and put back when the DaemonSet is deleted",
        f"or its node is no longer labelled; what was found is noted in {found_folder(d)} of the "
        "node",
        "if the NVIDIA runtime is not the default there, add runtimeClassName: nvidia to both pods",
    )


def node_selector(deployment: Deployment) -> dict[str, str]:
    """Return the label of the nodes that may run the server; none without limits."""
    return {_NODE_LABEL: deployment.name} if deployment.has_limits else {}


def limits_daemon_set(deployment: Deployment) -> dict[str, Any]:
    """Return the DaemonSet that holds the limits on every labelled node.

    It asks for no GPU, so that it takes none from the servers, and sees all of them.
    """
    d = deployment
    labels = {"app.kubernetes.io/name": f"{d.name}-limits"}
    folder = found_folder(d)
    container = {
        "name": "gpu-limits",
        "image": d.image,
        "command": ["/bin/sh", "-c", "\n".join(hold(d, ALL_GPUS)) + "\n"],
        "env": [
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
            {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "utility"},
        ],
        "securityContext": {"privileged": True},
        "readinessProbe": {"exec": {"command": ["test", "-e", READY_FILE]}, "periodSeconds": 2},
        "volumeMounts": [{"name": "found", "mountPath": folder}],
    }
    host_path = {"path": folder, "type": "DirectoryOrCreate"}
    pod = {
        "nodeSelector": node_selector(d),
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 60,
        "containers": [container],
        "volumes": [{"name": "found", "hostPath": host_path}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": f"{d.name}-limits", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


_HOME = (
    {"name": "HOME", "value": CACHE_FOLDER},
    {"name": "HF_HOME", "value": f"{CACHE_FOLDER}/huggingface"},
)


def environment(deployment: Deployment) -> list[dict[str, Any]]:
    """Return the server's variables; secrets come from a Secret, if there is one."""
    d = deployment
    secrets = [
        {
            "name": name,
            "valueFrom": {"secretKeyRef": {"name": d.name, "key": name, "optional": True}},
        }
        for name in d.secrets
    ]
    return [*secrets, *({"name": n, "value": literal(v)} for n, v in d.environment.items())]


def literal(text: str) -> str:
    """Return text in which Kubernetes replaces no $(VARIABLE): it makes one $ of two."""
    return text.replace("$", "$$")


def _server(d: Deployment) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": d.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": d.name, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # a second server would wait for the first's GPUs
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod(d)},
        },
    }


def _pod(d: Deployment) -> dict[str, Any]:
    health = {"httpGet": {"path": "/health", "port": "http"}}
    mounts = [
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": "cache", "mountPath": CACHE_FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        # so that it also starts with readOnlyRootFilesystem, which some clusters ask for
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if d.model_folder is not None:
        mounts.append({"name": "model", "mountPath": d.model_folder})
        volumes.append({"name": "model", "hostPath": {"path": d.model_folder, "type": "Directory"}})
    container = {
        "name": "vllm",
        "image": d.image,
        "command": ["vllm", "serve"],
        "args": [literal(word) for word in (*d.words, f"--port={PORT}")],
        "env": [*_HOME, *environment(d)],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": {"limits": {"nvidia.com/gpu": str(d.gpus)}},
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": 180},
        "readinessProbe": {**health, "periodSeconds": 5},
        "volumeMounts": mounts,
    }
    return {
        # a variable VLLM_..._PORT for each Service would be taken for one of vLLM's own
        "enableServiceLinks": False,
        **({"nodeSelector": node_selector(d)} if d.has_limits else {}),
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "containers": [container],
        "volumes": volumes,
    }


def _service(d: Deployment) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": d.name},
        "spec": {
            "selector": {"app.kubernetes.io/name": d.name},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
        },
    }
