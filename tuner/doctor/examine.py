"""Runs every check, slow ones concurrently, and collects the findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tuner.doctor.clocks import check_clocks, clock_facts
from tuner.doctor.disks import check_disks
from tuner.doctor.gpus import check_gpus
from tuner.doctor.host import Host
from tuner.doctor.leftovers import check_leftovers
from tuner.doctor.ownership import check_ownership
from tuner.doctor.resources import check_port, check_resources, usage
from tuner.doctor.software import check_packages, check_python, check_vllm
from tuner.doctor.stores import check_store
from tuner.errors import TunerError, UsageError
from tuner.host.finding import Finding, Level, problem
from tuner.host.state_folder import state_folders


@dataclass(frozen=True, slots=True)
class Question:
    """The run that the machine is checked for. `port` None is any free one."""

    store_url: str
    vllm: str | None
    port: int | None
    environment: Mapping[str, str]
    host: Host = field(default_factory=Host)


def examine(question: Question) -> list[Finding]:
    """Return the findings of every check, in the order of the checks.

    Takes as long as vLLM needs to answer, or the deadline of a hung GPU. Raises `UsageError` for an
    invalid store address.
    """
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(_safely, name, check) for name, check in _checks(question)]
        return [finding for each in running for finding in each.result()]


def _checks(q: Question) -> list[tuple[str, Callable[[], list[Finding]]]]:
    return [
        ("python", lambda: [check_python(), check_packages()]),
        ("vllm", lambda: check_vllm(q.vllm)),
        ("gpu", lambda: check_gpus(q.host, q.environment)),
        ("disk", lambda: check_disks(q.store_url)),
        ("ownership", lambda: check_ownership(q.store_url)),
        ("store", lambda: check_store(q.store_url)),
        ("leftovers", lambda: check_leftovers(state_folders())),
        ("port", lambda: [check_port(q.port)]),
        ("clock", lambda: check_clocks(q.host, clock_facts())),
        ("resources", lambda: check_resources(q.host, usage(q.host))),
    ]


def _safely(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Turn a check's unexpected error into a finding, so that the other checks still count."""
    try:
        return check()
    except UsageError:
        raise
    except (TunerError, OSError) as error:
        return [problem(name, f"could not be checked: {error}")]


def prevents_a_run(findings: list[Finding]) -> list[Finding]:
    """Return the problems."""
    return [finding for finding in findings if finding.level is Level.PROBLEM]
