from dataclasses import asdict

import pytest

from tuner.configuration import Configuration
from tuner.records import Load
from tuner.slo import Slo
from tuner.spec.stored import Capacity, StoredSpec
from tuner.spec.study import StudySpec

SPEC = StudySpec.model_validate({"model": "m", "slo": ["p99_tpot_ms <= 50.0"], "request_rate": 4})


def test_what_is_stored_is_read_back_and_written_the_same() -> None:
    capacity = Capacity(8.0, 8.2, "p99_tpot_ms is 51", 9)
    stored = StoredSpec(SPEC.model_dump(mode="json"), Configuration({"dtype": "auto"}), capacity)
    data = stored.to_json()
    assert data == {
        **SPEC.model_dump(mode="json"),
        "fixed": {"flags": {"dtype": "auto"}, "environment": {}, "device": {}, "load": {}},
        "capacity": asdict(capacity),
    }
    assert StoredSpec.from_json(data) == stored
    assert StudySpec.model_validate(stored.known).slos == (Slo("p99_tpot_ms", 50.0),)
    assert stored.load == Load(request_rate=4.0)


@pytest.mark.parametrize("data", [{}, {"gone": 1}, {"fixed": {}, "capacity": None}])
def test_an_older_store_may_lack_fields_and_have_others(data: dict[str, object]) -> None:
    stored = StoredSpec.from_json(data)
    assert (stored.load, stored.capacity, stored.emulate, stored.known) == (None, None, None, {})
    assert stored.confirms
    assert stored.fixed == Configuration()


def test_a_capacity_of_another_version_is_read() -> None:
    stored = StoredSpec.from_json({"capacity": {"request_rate": 8.0, "since_then": 1}})
    assert stored.capacity == Capacity(8.0)
