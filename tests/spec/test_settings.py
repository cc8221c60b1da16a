"""Settings by name: each goes where its name says, and a bad one is one sentence."""

import pytest

from tuner.errors import UsageError
from tuner.spec.settings import configuration_of, parse_settings


def test_settings_go_where_their_name_says() -> None:
    configuration = parse_settings(
        [
            "max_num_seqs=64",
            "enforce_eager=true",
            "dtype=float32",
            "VLLM_X=1",
            "power_limit_w=400",
            "request_rate=2.5",
        ]
    )
    assert dict(configuration.flags) == {
        "max_num_seqs": 64,
        "enforce_eager": True,
        "dtype": "float32",
    }
    assert dict(configuration.environment) == {"VLLM_X": 1}
    assert dict(configuration.device) == {"power_limit_w": 400}
    assert dict(configuration.load) == {"request_rate": 2.5}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["max_num_seqs"], "is not KNOB=VALUE"),
        (["=4"], "is not KNOB=VALUE"),
        (["a=1", "a=2"], "'a' is given twice"),
        (["a=[1, 2]"], "must be a number"),
    ],
)
def test_bad_settings_are_told(settings: list[str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(settings)
    assert says in str(caught.value)


def test_text_stays_text() -> None:
    assert dict(parse_settings(["a=", "b=no: where: ["]).flags) == {"a": "", "b": "no: where: ["}


def test_fields_of_a_structured_flag() -> None:
    found = parse_settings(["speculative_config={method: ngram, num_speculative_tokens: 4}", "x=1"])
    assert dict(found.flags) == {
        "speculative_config.method": "ngram",
        "speculative_config.num_speculative_tokens": 4,
        "x": 1,
    }


def test_a_configuration_from_names() -> None:
    found = configuration_of({"max_num_seqs": 8, "VLLM_X": "a", "concurrency": 4})
    assert found.to_json() == {
        "flags": {"max_num_seqs": 8},
        "environment": {"VLLM_X": "a"},
        "device": {},
        "load": {"concurrency": 4},
    }
