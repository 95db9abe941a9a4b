"""Read: one image and its mask from a site's disk, checked before anything is computed from them.

What is wrong with a case excludes the case (`CaseError`, a fixed phrase that the flow of patients counts). What is
wrong with the disk, a share or a right stops the site (`SiteError`): excluding patients because a share was away would
bias the study without a trace.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from cohortium.client.imaging import nifti
from cohortium.common.errors import CaseError, SiteError

CORNER_TOLERANCE = 0.01
"""Voxels by which corners of image and mask may differ: headers store positions in single precision."""

# Warnings of the readers name files with patient ids on standard error; what matters is checked and raised here.
sitk.ProcessObject.GlobalWarningDisplayOff()


def fingerprint(path: Path, role: str) -> str:
    """sha256 of a file's bytes, or of the bytes of all files of a DICOM folder in the order of their names.

    Parameters
    ----------
    path : Path
    role : str
        ``"image"`` or ``"mask"``, for messages.

    Raises
    ------
    CaseError
        There is no such file, or the folder is empty.
    SiteError
        The file is there and cannot be read: a right, a share or a disk is missing.
    """
    digest = hashlib.sha256()
    try:
        files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise CaseError(f"{role} file is missing", str(path)) from missing
    except OSError as broken:
        raise unreadable_disk(path, role, broken) from broken
    if not files:
        raise CaseError(f"{role} file is missing", f"{path} is an empty folder")
    return digest.hexdigest()


def unreadable_disk(path: Path, role: str, broken: OSError) -> SiteError:
    """The error that stops a site: what could not be read, why, and what to do."""
    if isinstance(broken, PermissionError):
        remedy = "give the account that runs cohortium the right to read it"
    else:
        remedy = "check that the disk or share is mounted and healthy"
    reason = os.strerror(broken.errno) if broken.errno else str(broken)
    return SiteError(f"{role} {path}: {reason}; {remedy}, then run prepare again (finished cases are kept)")


def read_image(path: Path) -> sitk.Image:
    """A three-dimensional image of one channel without NaN, as stored (NIfTI, NRRD, MetaImage or a DICOM folder).

    Raises
    ------
    CaseError
        ``image is unreadable``, ``image is not three-dimensional``, ``image has NaN or infinite values`` and their kin.
    """
    image, finite = _read(path, "image")
    # Integers cannot be NaN: spare the pass over large CT volumes.
    if "float" in image.GetPixelIDTypeAsString():
        finite = finite and bool(np.isfinite(sitk.GetArrayViewFromImage(image)).all())
    if not finite:
        raise CaseError("image has NaN or infinite values", str(path))
    return image


def read_mask(path: Path, image: sitk.Image) -> sitk.Image:
    """A region on the grid of `image`: 1 where the mask is not 0, uint8.

    Raises
    ------
    CaseError
        ``mask is unreadable``, ``mask is empty``, ``mask lies outside the image``,
        ``mask and image differ in geometry`` and their kin.
    """
    mask, _ = _read(path, "mask")
    region = sitk.Cast(mask != 0, sitk.sitkUInt8)
    inside = sitk.GetArrayViewFromImage(region)
    if not inside.any():
        raise CaseError("mask is empty", str(path))
    if not _same_grid(image, mask):
        if _leaves(image, region):
            raise CaseError("mask lies outside the image", str(path))
        raise CaseError("mask and image differ in geometry", f"{path}: {_grid(mask)}; image: {_grid(image)}")
    region.CopyInformation(image)
    return region


def _read(path: Path, role: str) -> tuple[sitk.Image, bool]:
    """The stored volume, and whether the file held finite values only, as far as ITK does not show it."""
    finite = True
    try:
        if nifti.is_nifti(path):
            finite = nifti.check(path)
        image = _read_series(path, role) if path.is_dir() else sitk.ReadImage(path)
    except OSError as broken:
        raise unreadable_disk(path, role, broken) from broken
    except (ValueError, RuntimeError) as broken:
        # ITK has one exception for everything; the bytes themselves are readable, or there would be an OSError.
        raise CaseError(f"{role} is unreadable", f"{path}: {str(broken).strip().splitlines()[-1]}") from broken
    if image.GetDimension() != 3:
        raise CaseError(f"{role} is not three-dimensional", f"{path}: {image.GetDimension()} dimensions")
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise CaseError(f"{role} has several channels", f"{path}: {image.GetNumberOfComponentsPerPixel()} channels")
    return image, finite


def _read_series(folder: Path, role: str) -> sitk.Image:
    """A DICOM folder of one series with evenly spaced slices."""
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise CaseError(f"{role} folder does not hold one DICOM series", f"{folder}: {len(series)} series")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    _check_spacing(files, folder, role)
    return sitk.ReadImage(files)


def _check_spacing(files: tuple[str, ...], folder: Path, role: str) -> None:
    """A missing slice leaves a gap that the series reader stretches over silently."""
    header = sitk.ImageFileReader()
    positions = []
    for file in files:
        header.SetFileName(file)
        header.ReadImageInformation()
        normal = np.reshape(header.GetDirection(), (3, 3))[:, 2]
        positions.append(float(normal @ header.GetOrigin()))
    gaps = np.diff(positions)
    if len(gaps) and np.ptp(gaps) > 0.01 * abs(np.median(gaps)):
        raise CaseError(f"{role} has unevenly spaced slices", f"{folder}: gaps of {gaps.min():g} to {gaps.max():g} mm")


def _same_grid(a: sitk.Image, b: sitk.Image) -> bool:
    """Whether the voxels of two images lie at the same places."""
    if a.GetSize() != b.GetSize():
        return False
    tolerance_mm = CORNER_TOLERANCE * min(a.GetSpacing())
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.GetSize()])).reshape(3, -1).T.tolist()
    apart = [
        np.subtract(a.TransformIndexToPhysicalPoint(corner), b.TransformIndexToPhysicalPoint(corner))
        for corner in corners
    ]
    return bool(np.abs(apart).max() <= tolerance_mm)


def _leaves(image: sitk.Image, region: sitk.Image) -> bool:
    """Whether a part of the region (on its own grid) lies outside the image's extent."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(region)
    box = np.array(shape.GetBoundingBox(1), dtype=float)
    ends = np.array([box[:3], box[:3] + box[3:] - 1])
    corners = np.array(np.meshgrid(*ends.T)).reshape(3, -1).T.tolist()
    at = np.array(
        [
            image.TransformPhysicalPointToContinuousIndex(region.TransformContinuousIndexToPhysicalPoint(corner))
            for corner in corners
        ]
    )
    return bool((at < -0.5).any() or (at > np.array(image.GetSize()) - 0.5).any())


def _grid(image: sitk.Image) -> str:
    spacing = " x ".join(f"{s:.4g}" for s in image.GetSpacing())
    origin = ", ".join(f"{o:.6g}" for o in image.GetOrigin())
    return f"{' x '.join(map(str, image.GetSize()))} voxels of {spacing} mm from ({origin})"
