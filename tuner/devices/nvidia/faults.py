"""NVML errors by what has to be done about them, and the tuner's error for each kind."""

from __future__ import annotations

from enum import StrEnum

from tuner.devices.limit_control import PermissionDeniedError, ReadOnlyDeviceError
from tuner.errors import OperatorNeededError, PreflightError, TunerError, UsageError


class NvmlFault(StrEnum):
    """Kinds of NVML errors, by what has to be done about them."""

    ABSENT = "absent"  # no driver, no library or no GPU here
    DENIED = "denied"  # needs root
    UNSUPPORTED = "unsupported"  # not on this GPU or with this driver
    REFUSED = "refused"  # a value or name that NVML does not accept
    READ_ONLY = "read only"  # a setting, asked of a process that was started to read alone
    PASSING = "passing"  # may be over at the next call; broken if it lasts
    BROKEN = "broken"  # a person has to look at the GPU or the driver


def error_of(fault: NvmlFault, message: str) -> TunerError:
    """Return the error that tells the user of a fault."""
    match fault:
        case NvmlFault.DENIED:
            return PermissionDeniedError(
                f"{message}; run as root (`sudo tuner ...`), allow it through Zeus's daemon zeusd "
                "(ZEUSD_SOCK_PATH), or leave out the knobs power_limit_w and sm_clock_mhz "
                "(`--space default`)"
            )
        case NvmlFault.READ_ONLY:
            return ReadOnlyDeviceError(message)
        case NvmlFault.UNSUPPORTED | NvmlFault.ABSENT:
            return PreflightError(message)
        case NvmlFault.REFUSED:
            return UsageError(message)
        case NvmlFault.BROKEN | NvmlFault.PASSING:
            return OperatorNeededError(
                f"{message}; look at `nvidia-smi` and the kernel log for Xid errors, then "
                "`tuner resume`"
            )
