"""Stored studies: list, status, recommendation, report, tasks, and results of other tools.

`store` is a SQLite file or a database URL everywhere. Every function raises `UsageError` if there
is no such store or study.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tuner import DEFAULT_STORE
from tuner.errors import UsageError
from tuner.slo import Slo
from tuner.store import ComparisonPoint, Store, StudySummary

if TYPE_CHECKING:
    from tuner.analysis.recommendation.recommend import Recommendation
    from tuner.analysis.side_by_side import SideBySide
    from tuner.analysis.tasks.gpu_tasks import GpuTasks
    from tuner.analysis.tasks.task_energy import TaskTable
    from tuner.report.terminal.status_table import Status


def list_studies(store: str = DEFAULT_STORE) -> list[StudySummary]:
    """Return every study with the counts of its trials, oldest first.

    Example: `[s.identity.name for s in tuner.list_studies()]`
    """
    with Store.open(store, create=False) as opened:
        return opened.studies()


def named_study(name: str | None, store: str = DEFAULT_STORE) -> str:
    """Return `name`, or without one the only study in the store; `UsageError` if it holds more."""
    if name is not None:
        return name
    with Store.open(store, create=False) as opened:
        names = [study.name for study in opened.identities()]
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError("the store holds no study yet; start one with `tuner run`")
    raise UsageError(f"the store holds {len(names)} studies; name one of: {', '.join(names)}")


def study_status(name: str | None = None, store: str = DEFAULT_STORE) -> Status:
    """Return the progress of a study that may be running elsewhere; None is the newest one."""
    from tuner.report.terminal.status_table import status
    from tuner.study.run_files import log_folder

    with Store.open(store, create=False) as opened:
        if name is None:
            studies = opened.identities()
            if not studies:
                raise UsageError("the store holds no study yet; start one with `tuner run`")
            name = studies[-1].name
        return status(opened, name, datetime.now(UTC), log_folder(store, name))


def recommend(
    model: str | None = None,
    *,
    study: str | None = None,
    slo: Sequence[str] | None = None,
    trial: int | None = None,
    store: str = DEFAULT_STORE,
) -> Recommendation:
    """Return the configuration to deploy, of the newest study of a model or of a named study.

    `slo`, e.g. `["p99_tpot_ms<=50"]`, replaces the study's own bounds on the same measurements.
    `trial` takes that trial instead. Raises `NoFeasibleConfigurationError` if nothing meets them.

    Example: `tuner.recommend("Llama-3.1-8B-Instruct").best.configuration.flags`
    """
    from tuner.analysis.recommendation.recommend import recommend as recommend_from

    bounds = _parsed(slo)
    with Store.open(store, create=False) as opened:
        return recommend_from(opened, model, study, bounds, trial)


def recommend_compared(
    model: str | None = None,
    *,
    study: str | None = None,
    slo: Sequence[str] | None = None,
    trial: int | None = None,
    store: str = DEFAULT_STORE,
) -> tuple[Recommendation, list[ComparisonPoint]]:
    """Return what `recommend` does, and what other tools measured of the same study's model.

    The store is opened, and with that checked, once for both.
    """
    from tuner.analysis.recommendation.recommend import recommend as recommend_from

    with Store.open(store, create=False) as opened:
        found = recommend_from(opened, model, study, _parsed(slo), trial)
        return found, opened.comparisons.of(found.study.name)


def deployment_text(recommendation: Recommendation, form: str) -> str:
    """Return a recommendation as a file of a deployment tool; `form` is one of `names.EXPORTS`."""
    from tuner.report.exports.deployment import deployment
    from tuner.report.exports.export import load_export

    return load_export(form)(deployment(recommendation))


def write_report(
    name: str, path: Path, *, slo: Sequence[str] | None = None, store: str = DEFAULT_STORE
) -> int:
    """Write a study as one HTML file; return its size in bytes.

    Example: `tuner.write_report("night", Path("night.html"))`
    """
    from tuner.analysis.report_data.report_data import read_report_data
    from tuner.report.html.page import write_page

    bounds = _parsed(slo)
    with Store.open(store, create=False) as opened:
        report_data = read_report_data(opened, name, bounds)
    return write_page(report_data, path)


def report_path(name: str, store: str = DEFAULT_STORE) -> Path:
    """Return where a study's report is written unless the user says otherwise."""
    from tuner.study.run_files import results_folder

    return results_folder(store) / f"{name.replace('/', '-')}.html"


def compare_studies(names: Sequence[str], store: str = DEFAULT_STORE) -> SideBySide:
    """Return what several studies recommend, side by side; differences are from the first.

    A name is that of a study in `store`, or `FILE.db` or `FILE.db:STUDY` for one in another.

    Example: `tuner.compare_studies(["before", "after"])`
    """
    from tuner.analysis.side_by_side import compared_study, side_by_side

    found = []
    for name in names:
        place, study = _placed(name, store)
        with Store.open(place, create=False) as opened, _naming(opened, place != store):
            found.append(compared_study(opened, named_study(study, place)))
    return side_by_side(found)


def write_side_by_side(found: SideBySide, path: Path) -> int:
    """Write a comparison of studies as one HTML file; return its size in bytes."""
    from tuner.report.html.side_by_side import write_side_by_side as write

    return write(found, path)


@contextmanager
def _naming(store: Store, is_another: bool) -> Iterator[None]:
    """Have what is wrong with a name say in which store that is."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{store.shown}: {error}" if is_another else str(error)) from error


def _placed(name: str, store: str) -> tuple[str, str | None]:
    """Return the store and the study that `FILE.db:STUDY`, `FILE.db` or `STUDY` names."""
    file, separator, study = name.rpartition(".db:")
    if separator:
        return f"{file}.db", study
    return (name, None) if name.endswith(".db") else (store, name)


def require_browser() -> None:
    """Raise `PreflightError` if there is no Chromium or Chrome for `write_pictures`."""
    from tuner.report.html.png import browser_path

    browser_path()


def write_pictures(report: Path, folder: Path) -> list[Path]:
    """Write a PNG of each figure of an HTML report; return their paths. Needs a browser."""
    from tuner.report.html.png import write_pictures as write

    return write(report, folder)


def task_tables(
    model: str | None = None, mfu: float = 0.1, store: str = DEFAULT_STORE
) -> list[TaskTable]:
    """Compare the workloads that a model was tuned for: measured energy, headroom, an estimate.

    `mfu` is the share of the GPU's peak that the estimate from FLOPs assumes.
    """
    from tuner.analysis.tasks.task_energy import task_tables as tables

    with Store.open(store, create=False) as opened:
        return tables(opened, model, mfu)


def gpu_tasks(gpu: str, store: str = DEFAULT_STORE) -> GpuTasks:
    """Compare the tasks of one GPU, whatever model each was tuned for, with chat.

    `gpu` is its name, or a part of it. Raises `UsageError`.
    """
    from tuner.analysis.tasks.gpu_tasks import gpu_tasks as tasks

    with Store.open(store, create=False) as opened:
        return tasks(opened, gpu)


def comparison_points(study: str, store: str = DEFAULT_STORE) -> list[ComparisonPoint]:
    """Return what other tools measured of a study's model."""
    with Store.open(store, create=False) as opened:
        return opened.comparisons.of(study)


def import_comparison(file: Path, study: str, store: str = DEFAULT_STORE) -> list[ComparisonPoint]:
    """Add another tool's results to a study; return them.

    `file` is one of `vllm bench serve --save-result`, of SGLang's or TensorRT-LLM's counterpart, or
    the folder or summary of a `vllm bench sweep`.
    """
    from tuner.store.imports.bench_serve import read_results

    points = read_results(file)
    with Store.open(store, create=False) as opened:
        opened.study(study)
        for point in points:
            opened.comparisons.add(study, point)
    return points


def _parsed(slo: Sequence[str] | None) -> list[Slo] | None:
    return [Slo.parse(text) for text in slo] if slo else None
