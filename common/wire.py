"""Wire: codec bytes inside a Flower record, and back.

The payload is one array of bytes, so that Flower sends a large one in chunks. There are no metrics, counts or
configuration values beside it: everything a message says is inside the bytes that the codec canonicalises and the
secure sum binds to its masks.
"""

from typing import TYPE_CHECKING

from cohortium.common.errors import WireError

if TYPE_CHECKING:
    from flwr.app import RecordDict

RECORD = "cohortium"
ARRAY = "message"
STYPE = "cohortium/1"
ASK = "query.ask"
"""Message type of a request to a site's door."""
IDENTIFY = "query.identify"
"""Message type that asks a node for the name of its site."""


def to_record(payload: bytes) -> "RecordDict":
    """Wrap bytes for the journey."""
    from flwr.app import Array, ArrayRecord, RecordDict  # 0.4 s, paid only by what really sends

    array = Array(dtype="uint8", shape=(len(payload),), stype=STYPE, data=payload)
    return RecordDict({RECORD: ArrayRecord({ARRAY: array})})


def from_record(record: "RecordDict") -> bytes:
    """Unwrap the bytes of `to_record`.

    Raises
    ------
    WireError
        The record holds anything else than one message of ours.
    """
    arrays = record.array_records
    if list(record) != [RECORD] or list(arrays) != [RECORD] or list(arrays[RECORD]) != [ARRAY]:
        raise WireError("a Flower record that is not one cohortium message; both sides must run the same version")
    array = arrays[RECORD][ARRAY]
    if array.stype != STYPE or array.dtype != "uint8":
        raise WireError(f"a message of type {array.stype!r}; this version reads {STYPE!r}: run the same version")
    return array.data
