"""RTSTRUCT: contours of one region to a mask on the image's grid, by geometry alone.

Every point goes into the image's own axes, so a contour lies on the slice it was drawn on whatever the orientation of
the slices, and no instance UID is needed (they are blank in some archives). A voxel belongs to the region if its centre
lies within an odd number of outlines of its slice: a contour within a contour is a hole, and so is one that is reached
by a channel of no width (DICOM PS3.3 C.8.8.6.3, keyhole).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cohortium.client.imaging import dicom_file
from cohortium.client.imaging.dicom_series import FRAME
from cohortium.client.imaging.findings import Finding

OFF_PLANE = 0.2
"""Share of a slice's thickness by which a contour may miss its slice."""
OUTSIDE = 0.5 + 1e-3
"""Voxels by which a point may lie beyond the outermost voxel centres: half a voxel, and the decimals of a text."""
MOST_POINTS = 10**7


def read_contours(path: Path, image: sitk.Image, names: Sequence[str]) -> NDArray[np.uint8]:
    """A region of a structure set on the grid of `image`, (z, y, x), 1 inside.

    Parameters
    ----------
    names : sequence of str
        Names that the region may have, the first found is taken; none: the only one that has contours.

    Raises
    ------
    CaseError
        ``mask is unreadable``, ``mask has no such region``, ``contours lie between the image's slices`` and their kin.
    OSError
        The disk failed.
    """
    with dicom_file.damaged(path, "mask"):
        structures = dicom_file.read(path)
        number = _number(structures, names, path)
        _check_frame(structures, number, image, path)
        outlines = _outlines(structures, number, path)
        return _rasterised(outlines, image, path)


def frames_of_reference(structures: Dataset) -> set[str]:
    """The frames of reference that a structure set says it was drawn in; may be empty."""
    named = structures.get("ReferencedFrameOfReferenceSequence") or ()
    return {uid for item in named if (uid := dicom_file.text(item, "FrameOfReferenceUID"))}


def referenced_studies(structures: Dataset) -> set[str]:
    """The examinations whose images a structure set says it was drawn on; may be empty."""
    frames = structures.get("ReferencedFrameOfReferenceSequence") or ()
    studies = [study for frame in frames for study in frame.get("RTReferencedStudySequence") or ()]
    return {uid for study in studies if (uid := dicom_file.text(study, "ReferencedSOPInstanceUID"))}


def fill(outlines: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies within an odd number of polygons; a centre on a left or upper edge is inside.

    Parameters
    ----------
    outlines : sequence of (n_points, 2)
        x (column) and y (row) of the corners, in pixels, 0 being the centre of the first.
    shape : (rows, columns)

    >>> square = np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 2.5], [0.5, 2.5]])
    >>> fill([square], (3, 4)).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    """
    rows, columns = shape
    # Every edge turns over all pixels to the right of it in the rows that it crosses; even-odd is what is left
    turns = np.zeros((rows, columns + 1), dtype=np.int64)
    for points in outlines:
        x0, y0 = points.T
        x1, y1 = np.roll(points, -1, axis=0).T
        first = np.clip(np.ceil(np.minimum(y0, y1)), 0, rows).astype(np.int64)
        last = np.clip(np.ceil(np.maximum(y0, y1)), 0, rows).astype(np.int64)  # half open: a corner counts once
        crossed = last - first
        edge = np.repeat(np.arange(len(points)), crossed)
        row = np.arange(crossed.sum()) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edge]
        x = x0[edge] + (row - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
        np.add.at(turns, (row, np.clip(np.ceil(x), 0, columns).astype(np.int64)), 1)
    return np.cumsum(turns, axis=1)[:, :columns] % 2 == 1


def _number(structures: Dataset, names: Sequence[str], path: Path) -> int:
    """Number of the region in the file."""
    listed = {
        int(item.ROINumber): dicom_file.text(item, "ROIName") for item in structures.get("StructureSetROISequence", ())
    }
    drawn = [
        int(item.ReferencedROINumber)
        for item in structures.get("ROIContourSequence", ())
        if item.get("ContourSequence") and int(item.ReferencedROINumber) in listed
    ]
    found = drawn
    for name in names:
        if found := [n for n in drawn if listed[n].casefold() == name.casefold()]:
            break
    if len(found) == 1:
        return found[0]
    several = "mask holds several regions; name one" if found == drawn else "mask holds several regions of one name"
    reason = several if found else "mask has no such region"
    raise Finding(reason=reason, file=path, tag=dicom_file.tag("ROIName")).error


def _check_frame(structures: Dataset, number: int, image: sitk.Image, path: Path) -> None:
    """A structure set may hold regions of several frames of reference."""
    ours = image.GetMetaData(FRAME) if image.HasMetaDataKey(FRAME) else ""
    drawn_in = {
        dicom_file.text(item, "ReferencedFrameOfReferenceUID")
        for item in structures.StructureSetROISequence
        if int(item.ROINumber) == number
    } - {""}
    if ours and drawn_in and ours not in drawn_in:
        tag = dicom_file.tag("ReferencedFrameOfReferenceUID")
        raise Finding(reason="mask and image have different frames of reference", file=path, tag=tag).error


def _outlines(structures: Dataset, number: int, path: Path) -> list[NDArray[np.float64]]:
    """Corners of each closed contour, (n_points, 3) in mm."""
    outlines: dict[bytes, NDArray[np.float64]] = {}
    points = 0
    for region in structures.ROIContourSequence:
        if int(region.ReferencedROINumber) != number:
            continue
        for contour in region.get("ContourSequence", ()):
            kind = dicom_file.text(contour, "ContourGeometricType")
            if kind == "POINT":  # a marker beside the region
                continue
            if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
                tag = dicom_file.tag("ContourGeometricType")
                raise Finding(reason="mask has contours that are not closed", file=path, tag=tag).error
            corners = np.array([float(value) for value in contour.ContourData]).reshape(-1, 3)
            points += len(corners)
            if not np.isfinite(corners).all() or points > MOST_POINTS:
                raise ValueError("not contours")
            if len(corners) >= 3:
                outlines[corners.tobytes()] = corners  # the same outline twice would cancel itself
    if not outlines:
        raise Finding(reason="mask is empty", file=path, tag=dicom_file.tag("ContourSequence")).error
    return list(outlines.values())


def _rasterised(outlines: Sequence[NDArray[np.float64]], image: sitk.Image, path: Path) -> NDArray[np.uint8]:
    size = np.array(image.GetSize())
    to_index = np.linalg.inv(np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())
    tag = dicom_file.tag("ContourData")
    planes: dict[float, list[NDArray[np.float64]]] = {}
    for outline in outlines:
        at = (outline - image.GetOrigin()) @ to_index.T
        if (at < -OUTSIDE).any() or (at > size - 1 + OUTSIDE).any():
            raise Finding(reason="mask lies outside the image", file=path, tag=tag).error
        if np.ptp(at[:, 2]) > OFF_PLANE:
            raise Finding(reason="contours lie in other planes than the image's slices", file=path, tag=tag).error
        planes.setdefault(round(float(at[:, 2].mean()), 2), []).append(at[:, :2])
    levels = np.array(sorted(planes))
    slices = np.round(levels).astype(np.int64)
    if np.abs(levels - slices).max() > OFF_PLANE:
        raise Finding(reason="contours lie between the image's slices", file=path, tag=tag).error
    steps = np.diff(np.unique(slices))
    if len(steps) > 1 and steps.min() == steps.max() > 1:
        raise Finding(reason="contours skip slices of the image", file=path, tag=tag).error
    inside = np.zeros(size[::-1], dtype=np.uint8)
    for level, at in zip(levels.tolist(), slices.tolist(), strict=True):
        inside[at] |= fill(planes[level], (int(size[1]), int(size[0])))
    return inside
