"""DICOM pixels: the stored values of one slice, from a header that may lie.

GDCM never returns from some damaged headers. Plain pixels are therefore taken out of the file here; compressed ones
go to GDCM (through SimpleITK) in a file of our own that holds nothing but what describes them.
"""

import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage

from cohortium.client.imaging import dicom_file

RAW = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">"}
"""Transfer syntaxes without compression, with the order of their bytes."""
DESCRIBING = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip


def stored_values(file: Path, role: str) -> NDArray:
    """Integers of a slice before rescaling, (rows, columns).

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
        return _raw(data, RAW[syntax]) if syntax in RAW else _decompressed(data, syntax)


def _raw(data: Dataset, order: str) -> NDArray:
    rows, columns = int(data.Rows), int(data.Columns)
    allocated, used = int(data.BitsAllocated), int(data.BitsStored)
    if allocated not in (8, 16, 32) or not 1 <= used <= allocated or int(data.HighBit) != used - 1:
        raise ValueError("bits")
    kind = np.dtype(f"{order}{'i' if int(data.PixelRepresentation) else 'u'}{allocated // 8}")
    values = np.frombuffer(data.PixelData, dtype=kind, count=rows * columns).reshape(rows, columns)
    # What lies above the stored bits is no part of the value; shifting back repeats the sign
    unused = allocated - used
    return values.astype(kind.newbyteorder("=")) << unused >> unused


def _decompressed(data: Dataset, syntax: str) -> NDArray:
    plain = Dataset()
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = syntax
    plain.file_meta.MediaStorageSOPClassUID = plain.SOPClassUID = CTImageStorage
    plain.file_meta.MediaStorageSOPInstanceUID = plain.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["slice"])
    for keyword in DESCRIBING:
        setattr(plain, keyword, data[keyword].value)
    plain.PixelData = data.PixelData
    plain["PixelData"].is_undefined_length = True  # fragments
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "slice.dcm"
        pydicom.dcmwrite(copy, plain, enforce_file_format=True)
        values = sitk.GetArrayFromImage(sitk.ReadImage(copy))
    return values.reshape(int(data.Rows), int(data.Columns))
