"""DICOM series: a folder of slices, or the frames of an enhanced file, to one volume, if they are one.

ITK sorts slices and stretches over gaps, shears and repeats without a word. So every header is read first and the
geometry is checked here: one series, patient, orientation and frame of reference; even steps along the normal of the
slices; no slice missing or there twice. Frames: dicom_frames.py; pixels: dicom_pixels.py; PET to SUV: suv.py.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cohortium.client.imaging import dicom_file, dicom_pixels
from cohortium.client.imaging.dicom_frames import frame_headers
from cohortium.client.imaging.findings import Finding, refuse
from cohortium.client.imaging.identity import identity_findings
from cohortium.client.imaging.suv import suv_factor

MODALITIES = {"CT": {"CT"}, "MR": {"MR"}, "PET": {"PT"}, "US": {"US"}}
"""DICOM's names of a study's modalities."""
NOT_SLICES = {".txt", ".json", ".xml", ".csv", ".md", ".db", ".ini"}  # the last two are left by Windows
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
    """A slice's header, and of it what decides how slices belong together."""

    file: Path
    frame_number: int  # within the file, from 0
    header: Dataset
    series: str
    instance: str
    patient: str
    study: str
    frame: str
    modality: str
    stack: str
    time: str
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


def read_series(
    files: Sequence[Path], role: str = "image", modality: str = "OTHER", units: str | None = None
) -> sitk.Image:
    """The volume of the files of one series, as stored, with rescaling applied.

    Parameters
    ----------
    units : "suv_bw", optional
        Standardised uptake values by body weight are made of a PET in Bq/ml.

    Raises
    ------
    CaseError
        The files are not one evenly spaced volume of the modality, or nothing that may be used; the phrase says why.
    OSError
        The disk failed.
    """
    slices = [found for file in files for found in read_slices(file, role)]
    refuse(series_findings(slices, role, modality, units))
    normal = np.cross(*slices[0].orientation)
    slices.sort(key=lambda found: float(normal @ found.position_mm))
    values = _values(slices, role)
    if units == "suv_bw":
        values = values * suv_factor([(given.header, given.file) for given in slices], role)
    image = sitk.GetImageFromArray(values)
    _place(image, slices)
    return image


def _values(slices: Sequence[Slice], role: str) -> NDArray:
    """Voxels (z, y, x), each slice rescaled by its own numbers: PET has another slope on every slice."""
    whole = all(float(number).is_integer() for given in slices for number in given.rescale)
    volume = np.zeros((len(slices), *slices[0].shape), dtype=np.int32 if whole else np.float64)
    places: dict[Path, dict[int, int]] = {}
    for z, given in enumerate(slices):
        places.setdefault(given.file, {})[given.frame_number] = z
    for file, at in places.items():
        for number, stored in enumerate(dicom_pixels.stored_frames(file, len(at), role)):
            slope, intercept = slices[at[number]].rescale
            values = stored * slope + intercept
            if np.abs(values).max() >= LARGEST_VALUE:
                raise _finding(slices[at[number]], f"{role} is unreadable", "RescaleSlope").error
            volume[at[number]] = values
    return volume


def read_slices(file: Path, role: str) -> list[Slice]:
    """The slices of a file: one, or the frames of an enhanced file.

    Raises
    ------
    CaseError
        It is damaged, cut, or holds no plain slices.
    """
    data = file.read_bytes()
    with dicom_file.damaged(file, role):
        header, after = dicom_file.read_header(data)
        if int(header.get("SamplesPerPixel") or 1) != 1:
            tag = dicom_file.tag("SamplesPerPixel")
            raise Finding(reason=f"{role} has several channels", file=file, tag=tag).error
        frames = list(frame_headers(header, file, role))
        shape = (int(header.Rows), int(header.Columns))
        slices = [_slice(frame, shape, number, file, role) for number, frame in enumerate(frames)]
        syntax = header.file_meta.TransferSyntaxUID
        _check_size(file, role, (len(frames), *shape), int(header.BitsAllocated), syntax, after)
        return slices


def _slice(header: Dataset, shape: tuple[int, int], number: int, file: Path, role: str) -> Slice:
    missing = [k for k in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing") if not header.get(k)]
    if missing:
        raise Finding(reason=f"{role} has no position in space", file=file, tag=dicom_file.tag(missing[0])).error
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
        frame_number=number,
        header=header,
        series=dicom_file.text(header, "SeriesInstanceUID"),
        instance=dicom_file.text(header, "SOPInstanceUID"),
        patient=dicom_file.text(header, "PatientID"),
        study=dicom_file.text(header, "StudyInstanceUID"),
        frame=dicom_file.text(header, "FrameOfReferenceUID"),
        modality=dicom_file.text(header, "Modality"),
        stack=dicom_file.text(header, "StackID"),
        time=dicom_file.text(header, "TemporalPositionIndex"),
        units=dicom_file.text(header, "Units"),
        shape=shape,
        spacing_mm=(row, column),
        orientation=orientation,
        position_mm=position,
        rescale=rescale,
        thickness_mm=thickness if np.isfinite(thickness) and thickness > 0 else 1.0,
        # What names a patient is said once in a file
        findings=tuple(identity_findings(header, file, role)) if number == 0 else (),
    )


def series_findings(
    slices: Sequence[Slice], role: str, modality: str = "OTHER", units: str | None = None
) -> list[Finding]:
    """What is wrong with the files of a folder together, the gravest first; each names the first file it shows in."""
    found = [*_one_of_each(slices, role, modality)]
    if not any(finding.refuses for finding in found):
        found += _stacking(slices, role)
    found += {
        (finding.reason, finding.tag): finding for given in reversed(slices) for finding in given.findings
    }.values()
    if any(not given.instance for given in slices):
        found.append(_finding(slices[0], f"{role} has blank instance UIDs", "SOPInstanceUID", refuses=False))
    if modality == "PET" and units is None and slices[0].units not in ("GML", ""):
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
        ("stack", f"{role} holds several volumes (4-D)", "StackID"),
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
        volumes = copies.min() == copies.max() or len({given.time for given in slices}) > 1
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


def _check_size(file: Path, role: str, shape: tuple[int, int, int], bits: int, syntax: str, after: int) -> None:
    """Numbers of a damaged header must not make a decoder ask for memory, nor a cut file pass."""
    pixels = math.prod(shape)
    needed = pixels * bits // 8 if syntax in dicom_pixels.RAW else pixels // PACKED
    if min(shape) < 1 or max(shape[1:]) > LARGEST_SIDE or bits not in (8, 16, 32) or after < needed:
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
