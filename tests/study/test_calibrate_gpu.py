from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tuner.api import machine
from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import load_model
from tuner.commands.calibrate import calibrate
from tuner.commands.shared.options import Format
from tuner.configuration import Configuration
from tuner.emulator.calibration import Multipliers, corrected
from tuner.emulator.virtual import simulate
from tuner.errors import UsageError
from tuner.evaluation.factory import fixed_configuration, measurement_plan
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import SteadyWindow
from tuner.records import Failure, Load, Measurement, Source
from tuner.spec.search_space import load_space
from tuner.spec.study import StudySpec
from tuner.store import Store, StudyIdentity, TrialOwner
from tuner.study.calibrate_gpu import CalibratedGpu, calibrate_gpu, measured_trials, predicted

SPEC = StudySpec(
    model="Qwen/Qwen3-8B",
    workload="smoke",
    min_window_s=4.0,
    max_window_s=4.0,
    concurrency=32,
    trials=4,
)
CONFIGURATIONS = [Configuration(flags={"max_num_seqs": n}) for n in (4, 8, 16, 32)]


def measured(gpu: Gpu, configuration: Configuration, trial: int) -> Measurement:
    """What a machine like `gpu` would have measured."""
    workload = load_workload(SPEC.workload)
    task = measurement_plan(SPEC, workload, fixed_configuration(load_space(SPEC.space)))
    raw = simulate(
        load_model(SPEC.model),
        gpu,
        task.full(configuration),
        workload.requests(),
        Load(concurrency=32),
        SteadyWindow(task.window_for(configuration)),
        seed=trial,
    )
    result = task.reduce(raw)
    assert not isinstance(result, Failure)
    return replace(result, latency_source=Source.MEASURED, energy_source=Source.MEASURED)


def identity(name: str, source: Source) -> StudyIdentity:
    return StudyIdentity(
        name=name,
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        model=SPEC.model,
        workload_name=SPEC.workload,
        workload_sha256="a" * 64,
        space_name="default",
        space_sha256="b" * 64,
        slos=(),
        objectives=("energy_per_output_token_j",),
        evaluation="live" if source is Source.MEASURED else "virtual",
        server_version="0.11.1",
        gpu="H100",
        driver="580",
        energy_source=source,
        latency_source=source,
        budget_trials=4,
        budget_s=None,
        spent_s=0.0,
        spec_json=SPEC.model_dump(mode="json"),
    )


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("store") / "tuner.db"
    different = Multipliers(memory_speed=0.85, active_power=1.2)
    machine = corrected(load_gpu("H100-SXM"), different)
    owner = TrialOwner(pid=1, boot_id="b", host="h", run_tag="r")
    with Store.open(path, create=True) as store:
        store.create_study(identity("real", Source.MEASURED))
        store.create_study(identity("dream", Source.EMULATED))
        for number, configuration in enumerate(CONFIGURATIONS):
            store.begin_trial("real", number, configuration, baseline=False, owner=owner)
            store.save_measurement("real", number, measured(machine, configuration, number), None)
    return str(path)


@pytest.fixture(scope="module")
def calibrated(
    store_path: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CalibratedGpu]:
    """A new GPU file, and how good it is."""
    output = tmp_path_factory.mktemp("calibrated") / "mine.yaml"
    return output, calibrate_gpu([], "H100-SXM", output, store_path)


@pytest.fixture
def found(calibrated: tuple[Path, CalibratedGpu], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file; the command need not fit again, which takes seconds."""
    output, result = calibrated

    def known(studies: list[str], gpu: str, file: Path, store_url: str) -> CalibratedGpu:
        assert (studies, gpu, file) == ([], "H100-SXM", output)
        return result

    monkeypatch.setattr(machine, "calibrate", known)
    return output


def test_a_calibrated_gpu_is_closer_and_can_be_emulated(
    found: Path, store_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(None, "H100-SXM", found, store_path, Format.JSON)
    shown = json.loads(capsys.readouterr().out)
    assert shown["measurements"] == 4
    errors = shown["mean_absolute_error"]
    for metric in ("output_throughput_tok_s", "energy_per_output_token_j"):
        assert errors[metric]["before"] > 0.05
        assert errors[metric]["after"] < 0.5 * errors[metric]["before"]
        assert errors[metric]["held_out"] < 0.7 * errors[metric]["before"]
    gpu = load_gpu(str(found))
    assert gpu.name == "mine"
    assert "calibrated to 4 measured trials of real" in gpu.source
    assert gpu.memory_efficiency < load_gpu("H100-SXM").memory_efficiency


def test_as_a_table(found: Path, store_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate(None, "H100-SXM", found, store_path, Format.TABLE)
    shown = capsys.readouterr().out
    assert "memory_speed x 0." in shown
    assert "held out" in shown


def test_flags_that_change_no_step_are_left_out(store_path: str) -> None:
    with Store.open(store_path, create=False) as store:
        row = next(measured_trials(store, "real", named=True))
    flags = {**row.configuration.flags, "load_format": "dummy", "skip_tokenizer_init": True}
    with_dummies = replace(row, configuration=replace(row.configuration, flags=flags))
    gpu = load_gpu("H100-SXM")
    assert predicted(with_dummies, gpu) == predicted(row, gpu)


@pytest.mark.parametrize(
    ("studies", "output", "message"),
    [
        (["dream"], "x.yaml", "was not measured on a GPU with vLLM launched by the tuner"),
        (["nothing"], "x.yaml", "nothing"),
        (["real"], "x.txt", r"name a file that ends in \.yaml"),
        (["real"], "no/folder/x.yaml", "cannot write"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    studies: list[str], output: str, message: str, store_path: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        calibrate(studies, "H100-SXM", tmp_path / output, store_path, Format.TABLE)
