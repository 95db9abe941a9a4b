"""DICOM pixels: the stored values of a file's slices, from a header that may lie.

GDCM never returns from some damaged headers. Plain pixels are therefore taken out of the file here; compressed ones
go to GDCM (through SimpleITK) in a file of our own that holds nothing but what describes them.
"""

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, CTImageStorage, RLELossless, generate_uid

from cohortium.client.imaging import dicom_file

RAW = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
"""Transfer syntaxes without compression, with the order of their bytes."""
MOST_TILES = 4096
FRAMES = {*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC}
"""Markers of frame headers in JPEG and JPEG-LS; the three are tables."""
DESCRIBING = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip


def stored_frames(file: Path, count: int, role: str) -> Iterator[NDArray]:
    """Integers of each of a file's `count` frames before rescaling, (rows, columns).

    Raises
    ------
    CaseError
        ``image is unreadable``.
    OSError
        The disk failed.
    """
    with dicom_file.damaged(file, role):
        data = dicom_file.read(file)
        syntax = str(data.file_meta.TransferSyntaxUID)
        if syntax in RAW:
            yield from _raw(data, RAW[syntax], count)
        else:
            for frame in _compressed(data, count):
                yield _decompressed(data, syntax, frame)


def _raw(data: Dataset, order: str, count: int) -> Iterator[NDArray]:
    rows, columns = int(data.Rows), int(data.Columns)
    allocated, used = int(data.BitsAllocated), int(data.BitsStored)
    if allocated not in (8, 16, 32) or not 1 <= used <= allocated or int(data.HighBit) != used - 1:
        raise ValueError("bits")
    kind = np.dtype(f"{order}{'i' if int(data.PixelRepresentation) else 'u'}{allocated // 8}")
    values = np.frombuffer(data.PixelData, dtype=kind, count=count * rows * columns).reshape(count, rows, columns)
    # What lies above the stored bits is no part of the value; shifting back repeats the sign
    unused = allocated - used
    for frame in values:
        yield frame.astype(kind.newbyteorder("=")) << unused >> unused


def _compressed(data: Dataset, count: int) -> list[bytes]:
    """The stream of each frame, whose fragments the file may list."""
    listed = None
    if data.get("ExtendedOffsetTable"):
        listed = (data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths)
    streams = list(generate_frames(data.PixelData, number_of_frames=count, extended_offsets=listed))
    if len(streams) != count:
        raise ValueError("frames")
    return streams


def codestream_shape(codestream: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream says it has, whatever the file around it says.

    Raises
    ------
    ValueError
        It is none of these, has several components, samples of an impossible size, or tiles without end.
    """
    if codestream[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: start, then the size (ISO 15444-1, A.5.1)
        x1, y1, x0, y0, tile_x, tile_y, _, _, components = struct.unpack_from(">8IH", codestream, 8)
        tiles = max(x1 // max(tile_x, 1), 1) * max(y1 // max(tile_y, 1), 1)
        if components != 1 or tiles > MOST_TILES:
            raise ValueError("components or tiles")
        return y1 - y0, x1 - x0
    at = 2
    while codestream[:2] == b"\xff\xd8":  # JPEG: segments until a frame header (ISO 10918-1, B.2.2; 14495-1, C.2.2)
        marker, length = struct.unpack_from(">HH", codestream, at)
        if marker in FRAMES:
            bits, rows, columns, components = struct.unpack_from(">BHHB", codestream, at + 4)
            # Of more bits GDCM writes beyond its memory
            if components != 1 or not 2 <= bits <= 16:
                raise ValueError("components or bits")
            return rows, columns
        at += 2 + length
    raise ValueError("codestream")


def check_segments(stream: bytes, count: int) -> None:
    """Whether an RLE stream lists a segment for each byte of a value, one behind the other (DICOM PS3.5, G.5).

    Raises
    ------
    ValueError
        It does not; GDCM divides by their number.
    """
    listed, *at = struct.unpack_from("<16I", stream)
    if listed != count or sorted({64, *at[:count]}) != at[:count] or at[count - 1] >= len(stream):
        raise ValueError("segments")


def _decompressed(data: Dataset, syntax: str, stream: bytes) -> NDArray:
    shape = (int(data.Rows), int(data.Columns))
    # A decoder takes its memory by the stream's own numbers
    if syntax == RLELossless:
        check_segments(stream, int(data.BitsAllocated) // 8)
    elif codestream_shape(stream) != shape:
        raise ValueError("size")
    plain = Dataset()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = UID(syntax)
    plain.file_meta.MediaStorageSOPClassUID = plain.SOPClassUID = CTImageStorage
    plain.file_meta.MediaStorageSOPInstanceUID = plain.SOPInstanceUID = generate_uid(entropy_srcs=["slice"])
    for keyword in DESCRIBING:
        setattr(plain, keyword, data[keyword].value)
    plain.PixelData = encapsulate([stream])
    plain["PixelData"].is_undefined_length = True  # fragments
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "slice.dcm"
        dcmwrite(copy, plain, enforce_file_format=True)
        values = sitk.GetArrayFromImage(sitk.ReadImage(copy))
    return values.reshape(shape)
