"""NIfTI: what ITK's reader hides. It fills the missing end of a cut file with zeros and turns NaN into 0, silently.

Layout of the header: https://nifti.nimh.nih.gov/nifti-1 and nifti-2.
"""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FLOATS = {16: "f4", 64: "f8"}  # codes of the header's datatype
FURTHEST = 2**24  # bytes of header and extensions: a damaged offset must not ask for memory
CHUNK = 2**22  # bytes, a multiple of every voxel's size


def is_nifti(path: Path) -> bool:
    """Whether a file's name says that it is NIfTI in one file."""
    return path.name.endswith((".nii", ".nii.gz"))


def check(path: Path) -> bool:
    """Read a file through to its end; returns whether all its values are finite.

    Raises
    ------
    ValueError
        The file ends before its data do, or is no NIfTI file.
    OSError
        The disk failed.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            kind, left = _header(stream)
            finite = True
            for chunk in _chunks(stream):
                data = chunk[:left]  # some writers append more after the voxels
                left -= len(data)
                if kind is not None and finite:
                    whole = len(data) - len(data) % kind.itemsize
                    finite = bool(np.isfinite(np.frombuffer(data[:whole], dtype=kind)).all())
    except (EOFError, gzip.BadGzipFile, zlib.error, struct.error, ArithmeticError, TypeError) as cut:
        raise ValueError(str(cut)) from cut
    if left:
        raise ValueError(f"the file ends {left} bytes before its voxels do")
    return finite


def _header(stream: io.BufferedIOBase) -> tuple[np.dtype | None, int]:
    """Type of the voxels, None for integers, and bytes of all voxels; leaves the stream at the first voxel."""
    start = stream.read(4)
    for order in "<>":
        (size,) = struct.unpack(f"{order}i", start)
        if size == 348:
            head = start + stream.read(344)
            dimensions = struct.unpack(f"{order}8h", head[40:56])
            datatype, bits = struct.unpack(f"{order}2h", head[70:74])
            offset = int(struct.unpack(f"{order}f", head[108:112])[0])
        elif size == 540:
            head = start + stream.read(536)
            datatype, bits = struct.unpack(f"{order}2h", head[12:16])
            dimensions = struct.unpack(f"{order}8q", head[16:80])
            (offset,) = struct.unpack(f"{order}q", head[168:176])
        else:
            continue
        if offset > FURTHEST:
            raise ValueError("voxels begin beyond any extension")
        stream.read(max(offset - size, 0))
        voxels = int(np.prod([max(n, 1) for n in dimensions[1 : 1 + dimensions[0]]], dtype=object))
        kind = np.dtype(order + FLOATS[datatype]) if datatype in FLOATS else None
        return kind, voxels * bits // 8
    raise ValueError("not a NIfTI file")


def _chunks(stream: io.BufferedIOBase) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk
