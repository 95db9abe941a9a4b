"""DICOM SEG: one segment to a mask on the image's grid, placed by its own geometry (highdicom reads it).

A segmentation is stored without its empty slices and may count them from the other end, so voxels are brought to the
image one by one: each must fall on the centre of one of the image's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cohortium.client.imaging import dicom_file
from cohortium.client.imaging.findings import Finding

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

OFF_CENTRE = 0.05
"""Voxels by which a segment's voxel may miss the centre of the image's: decimals of a header over many slices."""
LARGEST = 2**31


def read_segment(path: Path, image: sitk.Image, names: Sequence[str | int]) -> NDArray[np.uint8]:
    """A segment on the grid of `image`, (z, y, x), 1 inside.

    Parameters
    ----------
    names : sequence of str or int
        Labels or numbers that the segment may have, the first found is taken; none: the only one of the file.

    Raises
    ------
    CaseError
        ``mask is unreadable``, ``mask has no such region``, ``mask and image differ in geometry`` and their kin.
    OSError
        The disk failed.
    """
    # Slow to import, and few sites need it
    from highdicom.seg import Segmentation

    with dicom_file.damaged(path, "mask"):
        stored = dicom_file.read(path)
        _check_size(path, stored)
        segmentation = Segmentation.from_dataset(stored, copy=False)
        number = _number(segmentation, names, path)
        # Gaps between a segment's slices are empty slices that were left out
        volume = segmentation.get_volume(
            segment_numbers=[number], combine_segments=True, relabel=True, allow_missing_positions=True
        )
        return _placed(np.argwhere(volume.array > 0), volume.affine, image, path)


def _number(segmentation: "Segmentation", names: Sequence[str | int], path: Path) -> int:
    labels = {
        int(number): dicom_file.text(segmentation.get_segment_description(number), "SegmentLabel")
        for number in segmentation.segment_numbers
    }
    found = list(labels)
    for name in names:
        found = [n for n, label in labels.items() if name == n or str(name).casefold() == label.casefold()]
        if found:
            break
    if len(found) == 1:
        return found[0]
    several = (
        "mask holds several regions; name one"
        if len(found) == len(labels)
        else "mask holds several regions of one name"
    )
    reason = several if found else "mask has no such region"
    raise Finding(reason=reason, file=path, tag=dicom_file.tag("SegmentLabel")).error


def _check_size(path: Path, stored: Dataset) -> None:
    """Numbers of a damaged header must not make a decoder ask for memory."""
    voxels = int(stored.Rows) * int(stored.Columns) * int(stored.NumberOfFrames)
    bits = int(stored.BitsAllocated)
    raw = stored.file_meta.TransferSyntaxUID in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
    if voxels < 1 or voxels > LARGEST or (raw and len(stored.PixelData) * 8 < voxels * bits):
        raise Finding(reason="mask is unreadable", file=path, tag=dicom_file.tag("PixelData")).error


def _placed(voxels: NDArray[np.int64], affine: NDArray, image: sitk.Image, path: Path) -> NDArray[np.uint8]:
    inside = np.zeros(image.GetSize()[::-1], dtype=np.uint8)
    axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    to_index = np.linalg.inv(axes)
    tag = dicom_file.tag("PlanePositionSequence")
    # One voxel of the segment must be one of the image, whichever way its axes are counted
    turn = to_index @ affine[:3, :3]
    whole = np.round(turn)
    if np.abs(turn - whole).max() > OFF_CENTRE or (np.abs(whole).sum(axis=0) != 1).any():
        raise Finding(reason="mask and image differ in geometry", file=path, tag=tag).error
    at = (voxels @ affine[:3, :3].T + affine[:3, 3] - image.GetOrigin()) @ to_index.T
    if len(at) and np.abs(at - np.round(at)).max() > OFF_CENTRE:
        raise Finding(reason="mask and image differ in geometry", file=path, tag=tag).error
    at = np.round(at).astype(np.int64)
    if (at < 0).any() or (at >= image.GetSize()).any():
        raise Finding(reason="mask lies outside the image", file=path, tag=tag).error
    inside[at[:, 2], at[:, 1], at[:, 0]] = 1
    return inside
