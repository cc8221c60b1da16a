"""What can be wrong when NVML is asked, and the error that each fault becomes."""

from __future__ import annotations

from enum import StrEnum

from tuner.errors import OperatorNeededError, PreflightError, TunerError, UsageError


class Fault(StrEnum):
    """Kinds of NVML errors, by what has to be done about them."""

    ABSENT = "absent"  # no driver, no library or no GPU here
    DENIED = "denied"  # needs root
    UNSUPPORTED = "unsupported"  # not on this GPU or with this driver
    REFUSED = "refused"  # a value or name that NVML does not accept
    READ_ONLY = "read only"  # a setting, asked of a process that was started to read alone
    BROKEN = "broken"  # a person has to look at the GPU or the driver


class PermissionDeniedError(PreflightError):
    """This user may not change the GPU's settings."""


class ReadOnlyDeviceError(PreflightError):
    """Nobody may: the GPUs were opened to be read alone."""


def error_of(fault: Fault, message: str) -> TunerError:
    """Return the error that tells the user of a fault."""
    match fault:
        case Fault.DENIED:
            return PermissionDeniedError(
                f"{message}; run as root (`sudo tuner ...`), allow it through Zeus's daemon zeusd "
                "(ZEUSD_SOCK_PATH), or leave out the knobs power_limit_w and sm_clock_mhz "
                "(`--space default`)"
            )
        case Fault.READ_ONLY:
            return ReadOnlyDeviceError(message)
        case Fault.UNSUPPORTED | Fault.ABSENT:
            return PreflightError(message)
        case Fault.REFUSED:
            return UsageError(message)
        case Fault.BROKEN:
            return OperatorNeededError(
                f"{message}; look at `nvidia-smi` and the kernel log for Xid errors, then "
                "`tuner resume`"
            )
