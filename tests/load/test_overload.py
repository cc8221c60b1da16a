import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.load.overload import overload_sentence, served_share


@given(st.integers(1, 10**6), st.floats(0.0, 1.0), st.integers(0, 9999))
def test_the_share_is_read_from_the_sentence(arrived: int, share: float, queue: int) -> None:
    added = round(arrived * (1.0 - share))
    reason = overload_sentence(arrived, "the last 12 s", added, f"{queue} that waited")
    assert served_share(f"'vllm.log': {reason}") == pytest.approx(max(1 - added / arrived, 0.02))


@pytest.mark.parametrize("reason", ["", "out of memory", "of 0 requests that arrived in 1 s"])
def test_another_reason_has_none(reason: str) -> None:
    assert served_share(reason) is None
