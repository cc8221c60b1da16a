import asyncio
import os
import signal

import pytest

from tuner.errors import InterruptedBySignalError
from tuner.host.signals import run_interruptible


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_and_waits_for_the_clean_up(number: signal.Signals, code: int) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(30)
        finally:
            os.kill(os.getpid(), number)  # a second signal must not tear the clean-up
            await asyncio.sleep(0.05)
            cleaned.append("done")

    with pytest.raises(InterruptedBySignalError) as caught:
        run_interruptible(work())
    assert caught.value.exit_code == code
    assert cleaned == ["done"]


def test_a_result_and_an_error_pass_through() -> None:
    async def fine() -> int:
        return 7

    async def broken() -> int:
        raise ValueError("broken")

    assert run_interruptible(fine()) == 7
    with pytest.raises(ValueError, match="broken"):
        run_interruptible(broken())
