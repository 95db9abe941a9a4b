"""Bytes through Flower's own serialisation and back."""

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from cohortium.common.errors import WireError
from cohortium.common.wire import from_record, to_record


@pytest.mark.parametrize(
    "payload", [b"", b"\x00", bytes(range(256)) * 4, bytes(range(256)) * 4096, bytes(range(256)) * 50_000]
)
def test_round_trip(payload):
    record = to_record(payload)
    assert from_record(recorddict_from_proto(recorddict_to_proto(record))) == payload
    assert list(record) == ["cohortium"]
    assert not record.metric_records


def test_anything_else_is_refused():
    with pytest.raises(WireError, match="same version"):
        from_record(RecordDict({"cohortium": ConfigRecord({"a": 1})}))
    array = Array(dtype="uint8", shape=(1,), stype="numpy.ndarray", data=b"1")
    with pytest.raises(WireError, match="Array"):
        from_record(RecordDict({"cohortium": ArrayRecord({"message": array})}))
