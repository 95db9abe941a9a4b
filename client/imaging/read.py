"""Read: one image and its mask from a site's disk, checked before anything is computed from them.

What is wrong with a case excludes the case (`CaseError`, a fixed phrase that the flow of patients counts). What is
wrong with the disk, a share or a right stops the site (`SiteError`): excluding patients because a share was away would
bias the study without a trace.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cohortium.client.imaging import nifti
from cohortium.client.imaging.dicom_file import damaged, is_dicom, read_header, tag, text
from cohortium.client.imaging.dicom_seg import read_segment
from cohortium.client.imaging.dicom_series import FRAME, PATIENT, STUDY, read_series, slice_files
from cohortium.client.imaging.findings import Finding, refuse
from cohortium.client.imaging.identity import identity_findings
from cohortium.client.imaging.rtstruct import frames_of_reference, read_contours, referenced_studies
from cohortium.common.errors import CaseError, SiteError
from cohortium.sites.site_file import MaskFile

LARGEST = 2**31
"""Voxels."""
DENSEST = 1100
"""Voxels a byte; zlib reaches 1,032 on zeros."""
DETACHED = {".nhdr", ".mhd"}
"""Headers of data in another file."""
PAIRED = {".hdr", ".img"}
"""NIfTI in two files, whose end and NaN nobody checks."""
MOST_LABELS = 255
"""Different values of a mask of several regions; what has more was measured."""
SQUARE = 1e-3
"""Cosine by which an angle between axes may miss 90 degrees."""
CORNER_TOLERANCE = 0.01
"""Voxels by which corners of image and mask may differ: headers store positions in single precision."""

# Warnings of the readers name files with patient ids on standard error; what matters is checked and raised here.
sitk.ProcessObject.GlobalWarningDisplayOff()


def fingerprint(path: Path, role: str) -> str:
    """sha256 of a file's bytes, or of the bytes of all files of a DICOM folder in the order of their names.

    Of a header whose data lie in other files, also of the voxels.

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
        if path.suffix in DETACHED:
            digest.update(np.ascontiguousarray(sitk.GetArrayViewFromImage(_read(path, role)[0])).data)
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


def read_image(path: Path, modality: str = "OTHER", units: str | None = None) -> sitk.Image:
    """A three-dimensional image of one channel without NaN, as stored (NIfTI, NRRD, MetaImage or a DICOM folder).

    Parameters
    ----------
    modality : str
        What the study says it is; DICOM files must agree, other formats do not say.
    units : "suv_bw", optional
        DICOM is converted to these, other formats hold them already.

    Raises
    ------
    CaseError
        ``image is unreadable``, ``image is not three-dimensional``, ``image has NaN or infinite values`` and their kin.
    """
    image, finite = _read(path, "image", modality, units)
    # Integers cannot be NaN: spare the pass over large CT volumes.
    if "float" in image.GetPixelIDTypeAsString():
        finite = finite and bool(np.isfinite(sitk.GetArrayViewFromImage(image)).all())
    if not finite:
        raise CaseError("image has NaN or infinite values", str(path))
    return image


def read_mask(path: Path, image: sitk.Image, part: MaskFile | None = None) -> sitk.Image:
    """A region on the grid of `image`: 1 inside, uint8; from a mask, a DICOM structure set or a DICOM segmentation.

    Parameters
    ----------
    part : MaskFile, optional
        Which region of the file it is; without it, where a mask is not 0, or the only region of the file.

    Raises
    ------
    CaseError
        ``mask is unreadable``, ``mask is empty``, ``mask lies outside the image``,
        ``mask and image differ in geometry`` and their kin.
    """
    try:
        drawn = _drawn(path, image, part)
    except OSError as broken:
        raise unreadable_disk(path, "mask", broken) from broken
    if drawn is not None:
        if not drawn.any():
            raise CaseError("mask is empty", str(path))
        region = sitk.GetImageFromArray(drawn)
        region.CopyInformation(image)
        return region
    if part is not None and (part.roi or part.segment):
        raise CaseError("mask is no DICOM structure set or segmentation", str(path))
    mask, finite = _read(path, "mask")
    _check_labels(mask, path, part, finite=finite)
    region = sitk.Cast(mask != 0 if part is None or part.label is None else mask == part.label, sitk.sitkUInt8)
    inside = sitk.GetArrayViewFromImage(region)
    if not inside.any():
        if part is not None and part.label is not None and sitk.GetArrayViewFromImage(mask).any():
            raise CaseError("mask lacks the label", f"{path}: no voxel is {part.label}")
        raise CaseError("mask is empty", str(path))
    if not _same_grid(image, mask):
        if _leaves(image, region):
            raise CaseError("mask lies outside the image", str(path))
        raise CaseError("mask and image differ in geometry", f"{path}: {_grid(mask)}; image: {_grid(image)}")
    region.CopyInformation(image)
    return region


def _check_labels(mask: sitk.Image, path: Path, part: MaskFile | None, *, finite: bool) -> None:
    """What is no mask, as the image itself given for it, must not become a region without a word."""
    values = sitk.GetArrayViewFromImage(mask)
    if not (finite and np.isfinite(values).all()):
        raise CaseError("mask has NaN or infinite values", str(path))
    if values.dtype == np.uint8 or (part is not None and part.label is not None):
        return
    found = np.unique(values[values != 0])
    if len(found) > 1 and (len(found) > MOST_LABELS or found[0] < 0 or (found % 1).any()):
        raise CaseError(
            "mask holds measurements",
            f"{path}: {len(found)} different values, where a mask has one, or whole numbers; "
            "give the mask, or which label of it",
        )


def _drawn(path: Path, image: sitk.Image, part: MaskFile | None) -> NDArray[np.uint8] | None:
    """The region of a structure set or segmentation; None for any other file."""
    file, kind, header = _contours(path)
    if header is None:
        return None
    with damaged(file, "mask"):
        refuse([*identity_findings(header, file, "mask"), *_of_another(header, image, file)])
    part = part or MaskFile(path="{patient_id}")
    if part.label is not None:
        raise CaseError("mask has no voxels to have a label", f"{file}: name its roi (RTSTRUCT) or segment (DICOM SEG)")
    # A name is a name, whichever of both a site has for some of its patients
    if kind == "RTSTRUCT":
        return read_contours(file, image, part.roi or [str(name) for name in part.segment])
    return read_segment(file, image, part.segment or part.roi)


def part_named(path: Path, name: str) -> MaskFile:
    """The part of a mask's file that a name means there: a contour, a segment's label or number, a voxel's value."""
    try:
        _, kind, _ = _contours(path)
    except OSError:
        kind = ""  # whoever reads it says what is wrong
    number = int(name) if name.isdecimal() and int(name) else None
    if kind == "SEG":
        return MaskFile(path="{patient_id}", segment=(name, number) if number else (name,))
    if kind == "" and number:
        return MaskFile(path="{patient_id}", label=number)
    return MaskFile(path="{patient_id}", roi=(name,))


def mask_findings(path: Path, image: sitk.Image) -> list[Finding]:
    """Whether a structure set or segmentation is of its image's patient, coordinates and examination.

    Raises
    ------
    CaseError
        ``mask is unreadable``.
    SiteError
        A disk, share or right is missing.
    """
    try:
        file, _, header = _contours(path)
    except OSError as broken:
        raise unreadable_disk(path, "mask", broken) from broken
    if header is None:
        return []
    with damaged(file, "mask"):
        return list(_of_another(header, image, file))


def _contours(path: Path) -> tuple[Path, str, Dataset | None]:
    """File, kind and header of a structure set or segmentation, which may be alone in a folder; else no header."""
    file = path
    if path.is_dir():
        files = slice_files(path)
        if len(files) != 1:
            return path, "", None
        file = files[0]
    if not is_dicom(file):
        return file, "", None
    with damaged(file, "mask"):
        header, _ = read_header(file.read_bytes())
        kind = text(header, "Modality")
        return file, kind, header if kind in ("RTSTRUCT", "SEG") else None


def _of_another(header: Dataset, image: sitk.Image, file: Path) -> Iterator[Finding]:
    """Contours of another patient or examination, or in other coordinates; only what both files say can differ."""
    theirs = {
        PATIENT: ("mask and image are of different patients", "PatientID", {text(header, "PatientID")}),
        FRAME: (
            "mask and image have different frames of reference",
            "FrameOfReferenceUID",
            frames_of_reference(header) or {text(header, "FrameOfReferenceUID")},
        ),
        STUDY: (
            "mask and image are of different examinations",
            "StudyInstanceUID",
            # Contours are often stored as an examination of their own that refers to that of the image
            {text(header, "StudyInstanceUID"), *referenced_studies(header)},
        ),
    }
    for key, (reason, keyword, said) in theirs.items():
        ours = image.GetMetaData(key) if image.HasMetaDataKey(key) else ""
        if ours and said - {""} and ours not in said:
            yield Finding(reason=reason, file=file, tag=tag(keyword), refuses=key != STUDY)


def _read(path: Path, role: str, modality: str = "OTHER", units: str | None = None) -> tuple[sitk.Image, bool]:
    """The stored volume, and whether the file held finite values only, as far as ITK does not show it."""
    finite = True
    try:
        if path.is_dir() or is_dicom(path):
            image = _read_dicom(path, role, modality, units)
        else:
            if not path.stat().st_size:
                raise ValueError("the file is empty")
            if path.name.removesuffix(".gz").endswith(tuple(PAIRED)):
                raise ValueError("header and voxels are two files; save them as one, .nii.gz")
            if nifti.is_nifti(path):
                finite = nifti.check(path)
            _check_extent(path, role)
            image = sitk.ReadImage(path)
    except OSError as broken:
        raise unreadable_disk(path, role, broken) from broken
    except (ValueError, RuntimeError) as broken:
        # ITK has one exception for everything; the bytes themselves are readable, or there would be an OSError.
        raise CaseError(f"{role} is unreadable", f"{path}: {str(broken).strip().splitlines()[-1]}") from broken
    if image.GetDimension() != 3:
        raise CaseError(f"{role} is not three-dimensional", f"{path}: {image.GetDimension()} dimensions")
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise CaseError(f"{role} has several channels", f"{path}: {image.GetNumberOfComponentsPerPixel()} channels")
    # ITK searches without end in a volume that lies nowhere
    if not np.isfinite([*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()]).all():
        raise CaseError(f"{role} has positions that are no numbers", f"{path}: spacing, origin or direction")
    axes = np.reshape(image.GetDirection(), (3, 3))
    if np.abs(axes @ axes.T - np.eye(3)).max() > SQUARE:
        raise CaseError(f"{role} has axes that are not at right angles", f"{path}: bring it to a straight grid first")
    return image, finite


def _check_extent(path: Path, role: str) -> None:
    """Numbers of a damaged header must not make ITK ask for memory."""
    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    voxels = math.prod(header.GetSize()) * header.GetNumberOfComponents()
    packed = path.stat().st_size * DENSEST
    if voxels > LARGEST or (path.suffix not in DETACHED and voxels > packed):
        raise CaseError(f"{role} is unreadable", f"{path}: {path.stat().st_size} bytes cannot hold {voxels} voxels")


def _read_dicom(path: Path, role: str, modality: str, units: str | None) -> sitk.Image:
    files = slice_files(path) if path.is_dir() else [path]
    if not files:
        raise CaseError(f"{role} file is missing", f"{path} holds no slices")
    return read_series(files, role, modality, units)


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
