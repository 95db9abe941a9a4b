"""DICOM series: a folder of slices to one volume, if it is one.

ITK sorts slices and stretches over gaps, shears and repeats without a word. So every header is read first and the
geometry is checked here: one series, patient, orientation and frame of reference; even steps along the normal of the
slices; no slice missing or there twice. Pixels: dicom_pixels.py (JPEG2000 too).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from cohortium.client.imaging import dicom_file, dicom_pixels
from cohortium.client.imaging.findings import Finding, refuse
from cohortium.client.imaging.identity import identity_findings

MODALITIES = {"CT": {"CT"}, "MR": {"MR"}, "PET": {"PT"}, "US": {"US"}}
"""DICOM's names of a study's modalities."""
NOT_SLICES = {".txt", ".json", ".xml", ".csv", ".md"}
EVEN = 0.01
"""Share of a step by which steps may differ: positions are decimal texts."""
PARALLEL = 1e-3
"""Sine of the angle between the slices' normal and the line they are stacked along (headers round to 1e-4)."""
LARGEST_SIDE, LARGEST_VOLUME = 8192, 2**31
LARGEST_VALUE = 2**31
PACKED = 1000
"""More pixels a compressed byte than any real image has: the file's numbers are wrong."""
PATIENT, STUDY, FRAME = "cohortium.patient", "cohortium.study", "cohortium.frame"
"""Under these an image remembers whose it is, so that contours of somebody else are noticed."""


class Slice(NamedTuple):
    """A file's header, as far as it decides how slices belong together."""

    file: Path
    series: str
    instance: str
    patient: str
    study: str
    frame: str
    modality: str
    units: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    orientation: NDArray[np.float64]  # (2, 3), along a row and along a column
    position_mm: NDArray[np.float64]  # (3,)
    rescale: tuple[float, float]
    thickness_mm: float
    findings: tuple[Finding, ...]


def slice_files(folder: Path) -> list[Path]:
    """What must be slices of a folder: all but hidden files, notes and the index of a medium."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name != "DICOMDIR" and file.name[0] != "." and file.suffix not in NOT_SLICES
    )


def read_series(files: Sequence[Path], role: str = "image", modality: str = "OTHER") -> sitk.Image:
    """The volume of the files of one series, as stored, with rescaling applied.

    Raises
    ------
    CaseError
        The files are not one evenly spaced volume of the modality, or nothing that may be used; the phrase says why.
    OSError
        The disk failed.
    """
    slices = [read_slice(file, role) for file in files]
    refuse(series_findings(slices, role, modality))
    normal = np.cross(*slices[0].orientation)
    slices.sort(key=lambda found: float(normal @ found.position_mm))
    image = sitk.GetImageFromArray(_values(slices, role))
    _place(image, slices)
    return image


def _values(slices: Sequence[Slice], role: str) -> NDArray:
    """Voxels (z, y, x), each slice rescaled by its own numbers: PET has another slope on every slice."""
    whole = all(float(number).is_integer() for given in slices for number in given.rescale)
    volume = np.zeros((len(slices), *slices[0].shape), dtype=np.int32 if whole else np.float64)
    for z, given in enumerate(slices):
        slope, intercept = given.rescale
        values = dicom_pixels.stored_values(given.file, role) * slope + intercept
        if np.abs(values).max() >= LARGEST_VALUE:
            raise _finding(given, f"{role} is unreadable", "RescaleSlope").error
        volume[z] = values
    return volume


def read_slice(file: Path, role: str) -> Slice:
    """A file's header.

    Raises
    ------
    CaseError
        It is damaged, cut, or no plain slice.
    """
    data = file.read_bytes()
    with dicom_file.damaged(file, role):
        header, after = dicom_file.read_header(data)
        for keyword, allowed, reason in (
            ("SamplesPerPixel", 1, "has several channels"),
            ("NumberOfFrames", 1, "is a multi-frame file; export it as single slices"),
        ):
            if int(header.get(keyword) or 1) != allowed:
                raise Finding(reason=f"{role} {reason}", file=file, tag=dicom_file.tag(keyword)).error
        missing = [k for k in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing") if not header.get(k)]
        if missing:
            raise Finding(reason=f"{role} has no position in space", file=file, tag=dicom_file.tag(missing[0])).error
        shape = (int(header.Rows), int(header.Columns))
        _check_size(file, role, shape, int(header.BitsAllocated), header.file_meta.TransferSyntaxUID, after)
        orientation = np.array(dicom_file.numbers(header, "ImageOrientationPatient", 6)).reshape(2, 3)
        row, column = dicom_file.numbers(header, "PixelSpacing", 2)
        position = np.array(dicom_file.numbers(header, "ImagePositionPatient", 3))
        thickness = float(header.get("SliceThickness") or 1.0)
        rescale = (float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0)))
        if not np.isfinite([*orientation.ravel(), *position, row, column, *rescale]).all() or min(row, column) <= 0:
            raise ValueError("not finite")
        if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-3):
            tag = dicom_file.tag("ImageOrientationPatient")
            raise Finding(reason=f"{role} has axes that are not at right angles", file=file, tag=tag).error
        return Slice(
            file=file,
            series=dicom_file.text(header, "SeriesInstanceUID"),
            instance=dicom_file.text(header, "SOPInstanceUID"),
            patient=dicom_file.text(header, "PatientID"),
            study=dicom_file.text(header, "StudyInstanceUID"),
            frame=dicom_file.text(header, "FrameOfReferenceUID"),
            modality=dicom_file.text(header, "Modality"),
            units=dicom_file.text(header, "Units"),
            shape=shape,
            spacing_mm=(row, column),
            orientation=orientation,
            position_mm=position,
            rescale=rescale,
            thickness_mm=thickness if np.isfinite(thickness) and thickness > 0 else 1.0,
            findings=tuple(identity_findings(header, file, role)),
        )


def series_findings(slices: Sequence[Slice], role: str, modality: str = "OTHER") -> list[Finding]:
    """What is wrong with the files of a folder together, the gravest first; each names the first file it shows in."""
    found = [*_one_of_each(slices, role, modality)]
    if not any(finding.refuses for finding in found):
        found += _stacking(slices, role)
    found += {
        (finding.reason, finding.tag): finding for given in reversed(slices) for finding in given.findings
    }.values()
    if any(not given.instance for given in slices):
        found.append(_finding(slices[0], f"{role} has blank instance UIDs", "SOPInstanceUID", refuses=False))
    if modality == "PET" and slices[0].units not in ("GML", ""):
        found.append(_finding(slices[0], f"{role} is not in SUV", "Units", refuses=False))
    return sorted(found, key=lambda finding: not finding.refuses)


def _one_of_each(slices: Sequence[Slice], role: str, modality: str) -> list[Finding]:
    same = [
        ("series", f"{role} folder does not hold one DICOM series", "SeriesInstanceUID"),
        ("patient", f"{role} has slices of several patients", "PatientID"),
        ("study", f"{role} has slices of several examinations", "StudyInstanceUID"),
        ("frame", f"{role} has several frames of reference", "FrameOfReferenceUID"),
        ("modality", f"{role} has slices of several modalities", "Modality"),
        ("shape", f"{role} has slices of several sizes", "Rows"),
    ]
    found = []
    for field, reason, keyword in same:
        first = getattr(slices[0], field)
        odd = next((other for other in slices if getattr(other, field) != first), None)
        if odd is not None:
            found.append(_finding(odd, reason, keyword))
    for field, reason, keyword in (
        ("orientation", f"{role} mixes orientations", "ImageOrientationPatient"),
        ("spacing_mm", f"{role} has slices of several pixel spacings", "PixelSpacing"),
    ):
        first = getattr(slices[0], field)
        odd = next((other for other in slices if not np.allclose(getattr(other, field), first, atol=1e-4)), None)
        if odd is not None:
            found.append(_finding(odd, reason, keyword))
    if modality in MODALITIES and slices[0].modality not in MODALITIES[modality]:
        found.append(_finding(slices[0], f"{role} is of another modality", "Modality"))
    if len(slices) * np.prod(slices[0].shape, dtype=object) > LARGEST_VOLUME:
        found.append(_finding(slices[0], f"{role} is too large", "Rows"))
    return found


def _stacking(slices: Sequence[Slice], role: str) -> list[Finding]:
    """Whether the slices are evenly stacked along their normal."""
    if len(slices) < 2:
        return []
    normal = np.cross(*slices[0].orientation)
    place = np.array([normal @ given.position_mm for given in slices])
    order = np.argsort(place, kind="stable")
    place, slices = place[order], [slices[i] for i in order]
    gaps = np.diff(place)
    step = float(np.median(gaps[gaps > 1e-3])) if (gaps > 1e-3).any() else 0.0  # micrometre: the same place
    _, copies = np.unique(np.round(place / max(step, 1e-3) * 10), return_counts=True)
    if copies.max() > 1:
        twice = slices[int(np.argmin(gaps)) + 1]
        volumes = copies.min() == copies.max()
        reason = f"{role} holds several volumes (4-D)" if volumes else f"{role} has a slice twice"
        return [_finding(twice, reason, "ImagePositionPatient")]
    if np.ptp(gaps) > EVEN * step:
        after = slices[int(np.argmax(gaps)) + 1]
        whole = np.abs(gaps / gaps.min() - np.round(gaps / gaps.min())).max() < 5 * EVEN
        reason = f"{role} has missing slices" if whole else f"{role} has unevenly spaced slices"
        return [_finding(after, reason, "ImagePositionPatient")]
    along = np.array([given.position_mm for given in slices])
    sideways = along - along[0] - np.outer(place - place[0], normal)
    if np.linalg.norm(sideways, axis=1).max() > max(PARALLEL * np.ptp(place), 1e-2):
        return [_finding(slices[-1], f"{role} is sheared (tilted gantry)", "GantryDetectorTilt")]
    return []


def _check_size(file: Path, role: str, shape: tuple[int, int], bits: int, syntax: str, after: int) -> None:
    """Numbers of a damaged header must not make a decoder ask for memory, nor a cut file pass."""
    pixels = shape[0] * shape[1]
    needed = pixels * bits // 8 if syntax in dicom_pixels.RAW else pixels // PACKED
    if min(shape) < 1 or max(shape) > LARGEST_SIDE or bits not in (8, 16, 32) or after < needed:
        raise Finding(reason=f"{role} is unreadable", file=file, tag=dicom_file.tag("PixelData")).error


def _place(image: sitk.Image, slices: Sequence[Slice]) -> None:
    """The geometry that was checked, in place of what ITK made of it, and whose image it is."""
    first, last = slices[0], slices[-1]
    normal = np.cross(*first.orientation)
    step = float(normal @ (last.position_mm - first.position_mm)) / max(len(slices) - 1, 1)
    thickness = step or first.thickness_mm
    image.SetSpacing((first.spacing_mm[1], first.spacing_mm[0], thickness))
    image.SetOrigin(first.position_mm.tolist())
    image.SetDirection(np.column_stack([*first.orientation, normal]).ravel().tolist())
    for key, value in ((PATIENT, first.patient), (STUDY, first.study), (FRAME, first.frame)):
        image.SetMetaData(key, value)


def _finding(where: Slice, reason: str, keyword: str, *, refuses: bool = True) -> Finding:
    return Finding(reason=reason, file=where.file, tag=dicom_file.tag(keyword), refuses=refuses)
