"""Whose fault an error is, by its wording in vLLM 0.8 to 0.32 and in what vLLM stands on.

A cause in words that every version shares decides before the name of the exception does: a hub that
cannot be reached is wrapped in `OSError`, `RuntimeError` and a dozen of its clients' own.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from tuner.records import FailureKind

_CONFIGURATION = FailureKind.CONFIGURATION
_MACHINE = FailureKind.INFRASTRUCTURE


@dataclass(frozen=True, slots=True)
class Cause:
    """Whose fault it is, the words before the quotation, and those in it that told."""

    kind: FailureKind
    says: str
    told_by: str = ""


DOES_NOT_FIT = Cause(_CONFIGURATION, "the configuration does not fit into memory")
OTHERS_HOLD_IT = Cause(_MACHINE, "other processes hold the memory")
SHARED_MEMORY = Cause(_CONFIGURATION, "a kernel does not fit into the GPU's shared memory")
MACHINE = Cause(_MACHINE, "the machine could not run vLLM")

# 0.9 to 0.12 name no device, later ones do; a CPU's is a node. Told apart by the device's total.
_ON_DEVICE = re.compile(
    r"(Available|Free) memory on (node|device)\b[^(]*\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\)"
    r".*? is less than .*?(?P<asked>[\d.]+) GiB\)"
)

# The host's memory, which Ray's OutOfMemoryError and a failed fork are about.
_HOST_MEMORY = re.compile(
    r"node running low on memory|oom-kill|Out of memory: Killed process|killed by (the )?OOM"
    r"|SIGKILL by OOM killer|Cannot allocate memory|ray\.exceptions\.OutOfMemoryError",
    re.IGNORECASE,
)

# Memory that these settings ask for and the device does not have, by the names that NCCL, cuBLAS,
# the driver and torch's allocator (whose NVML assert is about nothing else) have for it.
_MEMORY = re.compile(
    r"No available memory for the cache blocks"
    r"|warming up sampler with \d+ dummy requests"
    r"|maximum number of tokens that can be stored in KV cache"
    r"|larger than the available KV cache memory"
    r"|OutOfMemoryError|\b(CUDA|HIP|XPU)\b( error|_ERROR)?:? ?out of memory"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory"
    r"|(Cuda|Hip) failure (2 )?'?out of memory|NCCL (WARN|error).*out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED.*cublasCreate"
    r"|CUDNN_STATUS_ALLOC_FAILED|NVML_SUCCESS == r INTERNAL ASSERT FAILED"
    r"|DefaultCPUAllocator: can't allocate memory",
    re.IGNORECASE,
)

# A kernel's tiles, which the settings choose, and the shared memory or registers of one SM.
_SHARED_MEMORY = re.compile(
    r"out of resources?: ((shared|tensor) memory|threads|registers)"
    r"|too many resources requested for launch"
    r"|uses too much shared (data|memory)",
    re.IGNORECASE,
)

# Another process, the machine, its drivers, its files or the network.
_OF_THE_MACHINE = re.compile(
    r"AssertionError: Error in memory profiling"
    r"|Address already in use|EADDRINUSE|No space left on device|Disk quota exceeded"
    r"|Too many open files|can't start new thread|Resource temporarily unavailable"
    # file systems; a file that is not there is not among them
    r"|\[?\b(Errno|os error) (5|6|11|12|16|19|23|24|28|30|98|10[0-57]|11[0-36]|122)\b"
    r"|Input/output error|Stale (NFS )?file handle|Transport endpoint is not connected"
    r"|Read-only file system|Host is down|Permission denied|insufficient shared memory"
    r"|Error while creating shared memory segment"
    # the GPU and its driver
    r"|CUDA-capable device(s|\(s\) is/are| is| are)* (busy|unavailable)|No CUDA GPUs are available"
    r"|system not yet initialized|uncorrectable ECC|GPU is lost|fallen off the bus"
    r"|driver on your system is too old|driver version is insufficient|Found no NVIDIA driver"
    r"|Driver/library version mismatch|NVML/RM version mismatch|Driver Not Loaded"
    r"|unsupported toolchain|forward compatibility was attempted"
    r"|CUDA unknown error|NVML Shared Library Not Found|Failed to infer device type"
    # a broken installation: a backend that is not installed is the configuration's, a symbol is not
    r"|cannot open shared object|undefined symbol|invalid ELF header|symbol lookup error"
    r"|version `?(GLIBC|GLIBCXX|CXXABI)\w*[\d.]*'? not found|torchvision::\w+ does not exist"
    r"|Failed to find C compiler|Could not find nvcc|cannot find -l\w+|Python\.h: No such file"
    r"|CalledProcessError: Command '\['[^']*/?(gcc|cc|g\+\+|c\+\+|clang(\+\+)?|ninja)'"
    r"|No module named '(vllm|torch|torchvision|triton|transformers|numpy)(\._?\w+)*'"
    # hub and network
    r"|couldn't connect to|error happened while trying to locate the file on the Hub"
    r"|\b(408|425|429|5\d\d) (Client|Server) Error|(Client|Server) error '(408|425|429|5\d\d)\b"
    r"|Too Many Requests|Service (Temporarily )?Unavailable|Bad Gateway|Gateway Time-?out"
    r"|name resolution|Name or service not known|getaddrinfo failed|nodename nor servname"
    r"|Network is (unreachable|down)|No route to host|Max retries exceeded|Read timed out"
    r"|Server disconnected|Remote end closed connection|Connection broken|IncompleteRead"
    r"|certificate verify failed|Consistency check failed"
    r"|Connection (refused|reset|aborted|timed out)|connection attempts failed",
    re.IGNORECASE,
)

# Exceptions that are about the network, whatever they say.
_NETWORK_NAMES = re.compile(
    r"Connection(Reset|Refused|Aborted)?Error|Connect(ion|or)?(Error|Timeout)|(Read|Connect|Pool"
    r"|Write)Timeout(Error)?|SSL\w*Error|ProxyError|MaxRetryError|NameResolutionError"
    r"|RemoteDisconnected|ChunkedEncodingError|RemoteProtocolError|ServerDisconnectedError"
    r"|Client(Connector\w*|OS|Payload)Error|LocalEntryNotFoundError|IncompleteRead|PermissionError"
)
_LOOKED_UP_OFFLINE = re.compile(r"outgoing traffic has been disabled|offline mode", re.IGNORECASE)

# The GPU itself: NVIDIA's Xid catalog says of 48 (a double-bit error) and 79 (off the bus) that it
# has to be reset or replaced.
BROKEN_GPU = re.compile(
    r"uncorrectable ECC|GPU is lost|fallen off the bus|\bXid\b.*: (48|79)\b|GPU requires reset",
    re.IGNORECASE,
)

# vLLM raises these while it checks what it was asked for.
_REFUSALS = re.compile(
    r"(Assertion|Attribute|GatedRepo|HFValidation|Import|Key|ModuleNotFound|NotImplemented|OS"
    r"|LocalEntryNotFound|EntryNotFound|RevisionNotFound"
    r"|RepositoryNotFound|Type|Validation|Value)Error"
)


def memory_cause(text: str, own_pids: Collection[int] = ()) -> Cause | None:
    """Return whose memory an error is about; None if it is not about memory."""
    if found := _ON_DEVICE.search(text):
        is_there = _number(found["asked"]) <= _number(found["total"])
        cause = OTHERS_HOLD_IT if is_there else DOES_NOT_FIT
    elif found := _HOST_MEMORY.search(text):
        cause = MACHINE
    elif found := _SHARED_MEMORY.search(text):
        cause = SHARED_MEMORY
    elif found := _MEMORY.search(text):
        cause = OTHERS_HOLD_IT if _others_hold_it(text, own_pids) else DOES_NOT_FIT
    else:
        return None
    return replace(cause, told_by=found[0])


def machine_cause(text: str, name: str = "") -> Cause | None:
    """Return the machine's fault that an error is about; None if it is about none."""
    if _LOOKED_UP_OFFLINE.search(text):
        return None
    found = _OF_THE_MACHINE.search(text) or _NETWORK_NAMES.fullmatch(name)
    return replace(MACHINE, told_by=found[0]) if found else None


def is_refusal(name: str) -> bool:
    """Say whether an exception of this bare name is one that checks of the settings raise."""
    return _REFUSALS.fullmatch(name) is not None


_CAPACITY = re.compile(r"total capacity of ([\d.]+) ([KMGT]?i?B)")
_ASKED = re.compile(r"Tried to allocate ([\d.]+) ([KMGT]?i?B)")
_FREE = re.compile(r"of which ([\d.]+) ([KMGT]?i?B|bytes) is free")
_PROCESS = re.compile(r"Process (\d+) has ([\d.]+) ([KMGT]?i?B|bytes) memory in use")
_OWN = re.compile(r"this process has ([\d.]+) ([KMGT]?i?B|bytes) memory in use")
_BY_TORCH = re.compile(r"Of the allocated memory ([\d.]+) ([KMGT]?i?B|bytes) is allocated")
_BYTES = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def _others_hold_it(text: str, own_pids: Collection[int]) -> bool:
    """Say whether processes that are not the server's hold what torch could not have.

    In a container torch cannot tell which process is its own: the one that holds at least what
    torch allocated is then taken for it.
    """
    asked, free = _bytes(_ASKED, text), _bytes(_FREE, text)
    if asked is None or free is None:
        return False
    most = _bytes(_CAPACITY, text) or float("inf")
    held = [
        _in_bytes(amount, unit)
        for pid, amount, unit in _PROCESS.findall(text)
        if int(pid) not in own_pids
    ]
    held = [amount for amount in held if amount <= most]  # 2**64 bytes are what NVML did not tell
    if not _OWN.search(text):
        by_torch = _bytes(_BY_TORCH, text) or 0.0
        own = [amount for amount in held if amount >= by_torch]
        if own:
            held.remove(min(own))
    return bool(held) and sum(held) >= asked - free


def _bytes(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    return _in_bytes(found[1], found[2]) if found else None


def _in_bytes(amount: str, unit: str) -> float:
    return _number(amount) * 2.0 ** _BYTES[unit[0].lower()]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # 1.2.3
        return 0.0
