"""Codec: one canonical byte string for a dictionary of numbers, texts and arrays.

Both sides hash the raw bytes of parameters into the masks of a sum (see `secure_sum`), so the encoding is canonical:
equal dictionaries give equal bytes. Layout: magic, header length (uint32 LE), header (JSON, sorted keys), arrays
(little-endian, C order, in the order of the header). Nothing is ever executed on decoding (no pickle).
"""

import json
import struct
from typing import Any

import numpy as np

from cohortium.common.errors import WireError

MAGIC = b"COH1"
DTYPES = ("<f8", "<f4", "<i8", "<i4", "<u8", "<u4", "|u1", "|b1")
_ARRAY = "\x00array"
_BYTES = "\x00bytes"


def pack(message: dict[str, Any]) -> bytes:
    """Bytes of a dictionary whose leaves are None, bool, int, float, str, bytes or numpy arrays.

    Lists and tuples become lists, numpy scalars become numbers. Floats keep all their bits.
    """
    arrays: list[bytes | memoryview] = []

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            dtype = array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype
            if dtype.str not in DTYPES:
                raise WireError(f"an array of dtype {value.dtype} cannot travel; use one of {', '.join(DTYPES)}")
            arrays.append(array.astype(dtype, copy=False).reshape(-1).view(np.uint8).data)  # no copy of a network
            return {_ARRAY: [dtype.str, list(value.shape)]}
        if isinstance(value, bytes):
            arrays.append(value)
            return {_BYTES: len(value)}
        if isinstance(value, dict):
            # sorted before the arrays are collected, so that their order is canonical too
            return {str(key): plain(value[key]) for key in sorted(value)}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, np.generic):
            return value.item()
        return value

    header = json.dumps(plain(message), sort_keys=True, separators=(",", ":"), allow_nan=True).encode()
    return MAGIC + struct.pack("<I", len(header)) + header + b"".join(arrays)


def unpack(data: bytes) -> dict[str, Any]:
    """Undo `pack`.

    Raises
    ------
    WireError
        The bytes are not one complete message.
    """
    view = memoryview(data)
    if len(view) < 8 or bytes(view[:4]) != MAGIC:
        raise WireError("not a cohortium message: the first four bytes differ")
    (size,) = struct.unpack("<I", view[4:8])
    try:
        header = json.loads(bytes(view[8 : 8 + size]))
    except (ValueError, RecursionError) as broken:
        raise WireError("the header of a message is not readable") from broken
    at = 8 + size

    def rich(value: Any) -> Any:
        nonlocal at
        if isinstance(value, list):
            return [rich(item) for item in value]
        if not isinstance(value, dict):
            return value
        if _ARRAY in value:
            try:
                kind, shape = value[_ARRAY]
                if kind not in DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
                    raise ValueError
                dtype = np.dtype(kind)
            except (ValueError, TypeError) as broken:
                raise WireError("an array of a message has no valid dtype and shape") from broken
            length = dtype.itemsize
            for extent in shape:  # Python integers: no overflow on hostile shapes
                length *= extent
            if at + length > len(view):
                raise WireError("a message ends before its arrays do")
            try:
                array = np.frombuffer(view[at : at + length], dtype=dtype).reshape(shape)
            except ValueError as broken:  # more dimensions, or longer ones of nothing, than an array can have
                raise WireError("an array of a message has no valid dtype and shape") from broken
            at += length
            return array
        if _BYTES in value:
            length = value[_BYTES]
            if not isinstance(length, int) or length < 0 or at + length > len(view):
                raise WireError("a message ends before its bytes do")
            raw = bytes(view[at : at + length])
            at += length
            return raw
        return {key: rich(item) for key, item in value.items()}

    try:
        message = rich(header)
    except RecursionError as broken:
        raise WireError("the header of a message is not readable") from broken
    if not isinstance(message, dict):
        raise WireError("a message must be a table at the top")
    if at != len(view):
        raise WireError("a message is longer than its header says")
    return message
