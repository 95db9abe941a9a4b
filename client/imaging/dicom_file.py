"""DICOM file: one file's data set, read so that whatever is damaged in it becomes a finding without a value.

pydicom has no one error for damaged files, and its messages and warnings quote values; both stop here.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import config, dcmread
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import Tag

from cohortium.common.errors import CaseError

PREAMBLE = 128  # bytes before the letters DICM
BROKEN = (
    ArithmeticError, AssertionError, AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError,
    MemoryError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
"""What pydicom and highdicom raise on damaged data. OSError too: the bytes are in memory by then."""

config.settings.reading_validation_mode = config.IGNORE


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"


@contextmanager
def damaged(path: Path, role: str) -> Iterator[None]:
    """Turn what the libraries raise about a file's content into a finding; their words may hold values and go.

    Raises
    ------
    CaseError
        ``image is unreadable`` or ``mask is unreadable``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CaseError:
        raise
    except BROKEN as broken:
        foreign = isinstance(broken, InvalidDicomError)
        what = "is no DICOM file" if foreign else f"{type(broken).__name__} while reading DICOM"
        raise CaseError(f"{role} is unreadable", f"{path}: {what}") from None


def read(path: Path) -> Dataset:
    """A whole file, parsed from memory; use within `damaged`. Elements are converted when they are looked at."""
    return dcmread(io.BytesIO(path.read_bytes()))


def read_header(data: bytes) -> tuple[Dataset, int]:
    """Everything before the pixels, and how many bytes come after it."""
    stream = io.BytesIO(data)
    header = dcmread(stream, stop_before_pixels=True)
    return header, len(data) - stream.tell()


def text(data: Dataset, keyword: str) -> str:
    """An element as text; empty where it is missing or blank."""
    found = data.get(keyword)
    return "" if found is None else str(found).strip().strip("\0")


def numbers(data: Dataset, keyword: str, count: int) -> list[float]:
    """An element of `count` numbers.

    Raises
    ------
    ValueError
        It is missing, or has another number of values.
    """
    found = data.get(keyword)
    values = [found] if isinstance(found, int | float) else list(found or ())
    if len(values) != count:
        raise ValueError(f"{keyword} has {len(values)} values")
    return [float(value) for value in values]


def tag(keyword: str) -> str:
    """A tag as people look it up.

    >>> tag("BurnedInAnnotation")
    '(0028,0301) Burned In Annotation'
    """
    number = tag_for_keyword(keyword)
    return keyword if number is None else f"{Tag(number)} {dictionary_description(number)}"
