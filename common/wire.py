"""Wire: codec bytes inside a Flower record, and back.

A small payload is one configuration value: three objects for Flower to move. A large one is an array of bytes, which
Flower cuts into chunks: five objects and more, too much for the many small messages. There is nothing else in a record,
no metric and no count: all that a message says is in the bytes that the codec canonicalises and the secure sum binds.
"""

from typing import TYPE_CHECKING

from cohortium.common.errors import WireError

if TYPE_CHECKING:
    from flwr.app import RecordDict

RECORD = "cohortium"
KEY = "message"
STYPE = "cohortium/1"
SMALL = 1 << 20
"""Bytes; below it a payload travels whole."""
ASK = "query.ask"
"""Message type of a request to a site's door."""
IDENTIFY = "query.identify"
"""Message type that asks a node for the name of its site."""


def to_record(payload: bytes) -> "RecordDict":
    """Wrap bytes for the journey."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict  # 0.4 s, paid only by what really sends

    if len(payload) < SMALL:
        return RecordDict({RECORD: ConfigRecord({KEY: payload})})
    array = Array(dtype="uint8", shape=(len(payload),), stype=STYPE, data=payload)
    return RecordDict({RECORD: ArrayRecord({KEY: array})})


def from_record(record: "RecordDict") -> bytes:
    """Unwrap the bytes of `to_record`.

    Raises
    ------
    WireError
        The record holds anything else than one message of ours.
    """
    from flwr.app import Array

    content = record.get(RECORD)
    if len(record) != 1 or content is None or list(content) != [KEY]:
        raise WireError("a Flower record that is not one cohortium message; both sides must run the same version")
    payload = content[KEY]
    if isinstance(payload, Array) and (payload.stype, payload.dtype) == (STYPE, "uint8"):
        payload = payload.data
    if not isinstance(payload, bytes):
        raise WireError(f"a message that is a {type(payload).__name__}; both sides must run the same version")
    return payload
