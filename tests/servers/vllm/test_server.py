"""vLLM's command line, and what it tells of itself."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.configuration import MODEL, Configuration
from tuner.errors import UsageError
from tuner.servers.vllm.server import RESERVED_FLAGS, VllmServer

NAMES = st.from_regex(r"[a-z]{1,8}(_[a-z]{1,8}){0,2}", fullmatch=True).filter(
    lambda name: name not in {*RESERVED_FLAGS, MODEL} and not name.startswith("no_")
)
VALUES = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10)


@given(flags=st.dictionaries(NAMES, VALUES))
def test_a_parser_reads_back_what_was_meant(flags) -> None:
    argv = VllmServer(("vllm",), "0").command_line(
        "-odd model-",
        Configuration(flags=flags),
        host="127.0.0.1",
        port=8123,
        served_name="nonce",
    )
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("host", "port", "served-model-name"):
        parser.add_argument(f"--{name}")
    for name, value in flags.items():
        dashed = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(dashed, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(dashed, type=type(value))
    found = vars(parser.parse_args(argv[3:]))
    assert argv[:3] == ("vllm", "serve", "-odd model-")
    assert (found.pop("host"), found.pop("port")) == ("127.0.0.1", "8123")
    assert found.pop("served_model_name") == "nonce"
    assert found == flags


@pytest.mark.parametrize("name", sorted(RESERVED_FLAGS))
def test_the_address_cannot_be_a_knob(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is set by the tuner"):
        VllmServer(("vllm",), "0").command_line(
            "m",
            Configuration(flags={name: 1}),
            host="127.0.0.1",
            port=1,
            served_name="n",
        )
