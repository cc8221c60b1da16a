"""The one place that calls NVML, and the stand-in under it."""

import ast
import ctypes
import inspect
from contextlib import suppress
from pathlib import Path

import pynvml
import pytest
from helpers.nvml_standin.standin import SOURCE

from tuner.devices.limit_control import PermissionDeniedError
from tuner.devices.nvidia import nvml_library
from tuner.devices.nvidia.faults import NvmlFault, error_of
from tuner.devices.nvidia.nvml_library import FAULTS, NvmlFaultError, ask, ask_maybe, ask_text
from tuner.errors import OperatorNeededError, PreflightError, UsageError

CODES = {
    name: getattr(pynvml, name)
    for name in dir(pynvml)
    if name.startswith("NVML_ERROR_") and isinstance(getattr(pynvml, name), int)
}


@pytest.mark.parametrize("name", sorted(CODES))
def test_every_error_of_nvml_is_mapped(name: str) -> None:
    assert CODES[name] in FAULTS


@pytest.mark.parametrize("code", [4711, pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_TIMEOUT])
def test_an_error_that_may_pass_is_not_the_gpus_state(code: int) -> None:
    """Also a code from a newer NVML: nothing that we know to be harmless, or to last."""

    def fail() -> None:
        raise pynvml.NVMLError(code)

    with pytest.raises(NvmlFaultError) as caught:
        ask("power", fail)
    assert caught.value.fault is NvmlFault.PASSING


RAISED = [
    pynvml.NVMLLibraryMismatchError("the driver is older than nvidia-ml-py"),
    ValueError("4294967295 is not a process"),
    OverflowError(),
    AttributeError("'NoneType' object has no attribute 'pid'"),
    KeyError(5),
    ctypes.ArgumentError("argument 2"),
    *(pynvml.NVMLError(code) for code in range(-3, 1100, 7)),
]


@pytest.mark.parametrize("error", RAISED, ids=repr)
def test_whatever_nvidia_ml_py_raises_is_an_answer(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(NvmlFaultError, match="processes of GPU-0: "):
        ask("processes of GPU-0", fail)
    with suppress(NvmlFaultError):
        assert ask_maybe("processes of GPU-0", fail) is None


def test_bytes_that_are_no_text_are_a_name_all_the_same() -> None:
    assert ask_text("name", b"H100 \xff\xfe".decode) == "H100 \ufffd\ufffd"
    assert ask_text("name", lambda: b"H100 \xff") == "H100 \ufffd"


@pytest.mark.parametrize(
    ("fault", "error", "exit_code"),
    [
        (NvmlFault.ABSENT, PreflightError, 3),
        (NvmlFault.UNSUPPORTED, PreflightError, 3),
        (NvmlFault.DENIED, PermissionDeniedError, 3),
        (NvmlFault.REFUSED, UsageError, 2),
        (NvmlFault.PASSING, OperatorNeededError, 5),
        (NvmlFault.BROKEN, OperatorNeededError, 5),
    ],
)
def test_every_fault_becomes_an_error(fault: NvmlFault, error: type, exit_code: int) -> None:
    found = error_of(fault, "power of GPU 0")
    assert type(found) is error
    assert found.exit_code == exit_code
    assert "power of GPU 0" in str(found)


def test_only_what_is_unsupported_or_forbidden_is_unknown() -> None:
    def fail(code: int) -> None:
        raise pynvml.NVMLError(code)

    assert ask_maybe("power", fail, pynvml.NVML_ERROR_NOT_SUPPORTED) is None
    assert ask_maybe("power", fail, pynvml.NVML_ERROR_NO_PERMISSION) is None
    with pytest.raises(NvmlFaultError):
        ask_maybe("power", fail, pynvml.NVML_ERROR_GPU_IS_LOST)


def test_the_standin_covers_every_function_that_we_call() -> None:
    """By name: nvmlDeviceGetFoo is nvmlDeviceGetFoo, _v2 or _v3 in the library."""
    tree = ast.parse(inspect.getsource(nvml_library))
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("nvml")
        and node.attr != "nvmlReturn"
    }
    assert len(called) > 20
    source = SOURCE.read_text()
    missing = {name for name in called if f'"{name}"' not in source}
    assert not missing


def test_nothing_else_in_the_tuner_calls_nvml() -> None:
    package = Path(inspect.getfile(nvml_library)).parents[1]
    users = {
        path.name
        for path in package.rglob("*.py")
        if "import pynvml" in path.read_text() or "from pynvml" in path.read_text()
    }
    assert users == {"nvml_library.py", "power_profiles.py"}
