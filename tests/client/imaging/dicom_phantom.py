"""DICOM phantom: a small series, structure set and segmentation with known voxels, for tests and the fuzz benchmark."""

import copy
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    RTStructureSetStorage,
)

FRAME, STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"
SPACING_MM = (1.5, 1.0, 2.0)  # along a row, along a column, between slices
ORIGIN_MM = (-12.0, 7.0, 30.0)
AXIAL = np.eye(3)


def oblique() -> NDArray[np.float64]:
    """Axes (columns: row, column, normal) of slices that are tilted about two axes."""
    a, b = 0.4, -0.3
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return about_x @ about_y


def place(index: NDArray[np.float64], axes: NDArray[np.float64] = AXIAL) -> NDArray[np.float64]:
    """Millimetres of (x, y, z) indices."""
    return np.asarray(ORIGIN_MM) + (np.asarray(index, dtype=float) * SPACING_MM) @ axes.T


def _identified(kind: str, sop_class: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = sop_class
    data.PatientID, data.PatientName = "p0", "p0^"
    data.PatientBirthDate = data.PatientSex = data.StudyID = data.AccessionNumber = ""
    data.StudyDate = data.StudyTime = ""
    data.StudyInstanceUID, data.FrameOfReferenceUID, data.Modality = STUDY, FRAME, kind
    return data


def slices(voxels: NDArray[np.int16], axes: NDArray[np.float64] = AXIAL) -> list[Dataset]:
    """A CT series of (z, y, x) values."""
    series = []
    for z, plane in enumerate(voxels):
        data = _identified("CT", CTImageStorage)
        data.SeriesInstanceUID = SERIES
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{SERIES}.{z + 1}"
        data.SeriesNumber, data.InstanceNumber = 1, z + 1
        data.ImageOrientationPatient = [round(float(v), 8) for v in axes[:, :2].T.ravel()]
        data.ImagePositionPatient = [round(float(v), 6) for v in place((0, 0, z), axes)]
        data.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]
        data.SliceThickness = SPACING_MM[2]
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = plane.astype("<i2").tobytes()
        series.append(data)
    return series


def jpeg2000(series: Sequence[Dataset]) -> list[Dataset]:
    """The same slices compressed without loss; values must not be negative."""
    packed = []
    for given in series:
        data = copy.deepcopy(given)
        values = np.frombuffer(given.PixelData, dtype="<i2").astype(np.uint16).reshape(given.Rows, given.Columns)
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
        data.PixelRepresentation = 0
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.PixelData = encapsulate([stream.getvalue()])
        data["PixelData"].is_undefined_length = True
        packed.append(data)
    return packed


def compressed(series: Sequence[Dataset], syntax: str) -> list[Dataset]:
    """The same slices, values at least 0, compressed by outside libraries; JPEG baseline is of 8 bits and lossy."""
    if syntax == JPEG2000Lossless:
        return jpeg2000(series)
    packed = []
    for given in series:
        data = copy.deepcopy(given)
        data.PixelRepresentation = 0
        values = np.frombuffer(given.PixelData, dtype="<i2").astype(np.uint16).reshape(given.Rows, given.Columns)
        if syntax in (RLELossless, JPEGLSLossless):
            data.compress(syntax, generate_instance_uid=False)
        else:
            data.file_meta.TransferSyntaxUID = syntax
            data.PixelData = encapsulate([_jpeg(values) if syntax == JPEGBaseline8Bit else _jpeg_lossless(values)])
        if syntax == JPEGBaseline8Bit:
            data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data["PixelData"].is_undefined_length = True
        packed.append(data)
    return packed


def _jpeg(values: NDArray[np.uint16]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((values >> 8).astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def _jpeg_lossless(values: NDArray[np.uint16]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        writer = sitk.ImageFileWriter()
        writer.SetFileName(f"{folder}/slice.dcm")
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(values[None]))
        written = pydicom.dcmread(f"{folder}/slice.dcm")
    assert written.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return next(generate_frames(written.PixelData, number_of_frames=1))


def structure_set(regions: dict[str, Sequence[NDArray[np.float64]]]) -> Dataset:
    """RTSTRUCT of named regions, each of closed contours, (n, 3) in mm."""
    data = _identified("RTSTRUCT", RTStructureSetStorage)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{SERIES}.900"
    data.SeriesInstanceUID = f"{SERIES}.9"
    reference = Dataset()
    reference.FrameOfReferenceUID = FRAME
    data.ReferencedFrameOfReferenceSequence = Items([reference])
    data.StructureSetROISequence, data.ROIContourSequence = Items(), Items()
    for number, (name, contours) in enumerate(regions.items(), start=1):
        listed, drawn = Dataset(), Dataset()
        listed.ROINumber, listed.ROIName, listed.ReferencedFrameOfReferenceUID = number, name, FRAME
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = Items()
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{value:.6f}" for value in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(listed)
        data.ROIContourSequence.append(drawn)
    return data


def box_outline(x0: float, x1: float, y0: float, y1: float, z: float, axes: NDArray = AXIAL) -> NDArray[np.float64]:
    """Contour of a rectangle between half voxels of slice `z`, in mm."""
    corners = [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]
    return place(np.array(corners), axes)


def segmentation(series: list[Dataset], segments: dict[str, NDArray[np.bool_]]) -> Dataset:
    """DICOM SEG of named segments, (z, y, x), on the slices of a series."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    described = [
        hd.seg.SegmentDescription(
            number, name, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(segments, start=1)
    ]  # fmt: skip
    return hd.seg.Segmentation(
        series, np.stack(list(segments.values()), axis=-1).astype(np.uint8), hd.seg.SegmentationTypeValues.BINARY,
        described, f"{SERIES}.8", 8, f"{SERIES}.800", 1, "maker", "model", "1", "1",
    )  # fmt: skip


def write(data: Dataset, path: Path) -> Path:
    """Save a data set as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def write_series(folder: Path, series: Sequence[Dataset]) -> Path:
    """Save slices in a folder under names that do not sort by place."""
    for number, data in enumerate(series):
        write(data, folder / f"{(number * 7) % 101:03d}_{number}.dcm")
    return folder


def pet(voxels: NDArray[np.int16], **elements: object) -> list[Dataset]:
    """A PET series in Bq/ml, corrected to its start: 370 MBq of F-18 (6,586.2 s) one hour before, 70 kg."""
    series = slices(voxels)
    for data in series:
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = PositronEmissionTomographyImageStorage
        data.Modality, data.Units, data.DecayCorrection = "PT", "BQML", "START"
        data.CorrectedImage = ["DECY", "ATTN", "SCAT"]
        data.PatientWeight = 70
        data.SeriesDate = data.AcquisitionDate = "20200314"
        data.SeriesTime, data.AcquisitionTime = "100000", "100000"
        injection = Dataset()
        injection.RadiopharmaceuticalStartTime = "090000"
        injection.RadionuclideTotalDose, injection.RadionuclideHalfLife = 370_000_000, 6586.2
        data.RadiopharmaceuticalInformationSequence = Items([injection])
        for keyword, value in elements.items():
            setattr(data, keyword, value)
    return series


def enhanced(series: Sequence[Dataset], **rows: Sequence[object]) -> Dataset:
    """The slices as frames of one enhanced CT file, those after the first in a random order.

    Parameters
    ----------
    rows : an element of the frame content of each slice, by keyword
    """
    data = copy.deepcopy(series[0])
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = EnhancedCTImageStorage
    order = [0, *(1 + np.random.default_rng(1).permutation(len(series) - 1)).tolist()]
    shared, data.NumberOfFrames = Dataset(), len(series)
    shared.PixelMeasuresSequence = Items([_moved(data, "PixelSpacing", "SliceThickness")])
    shared.PlaneOrientationSequence = Items([_moved(data, "ImageOrientationPatient")])
    data.SharedFunctionalGroupsSequence = Items([shared])
    data.PerFrameFunctionalGroupsSequence = Items()
    for z in order:
        frame, given = Dataset(), copy.copy(series[z])
        frame.PlanePositionSequence = Items([_picked(given, "ImagePositionPatient")])
        frame.PixelValueTransformationSequence = Items([_picked(given, "RescaleSlope", "RescaleIntercept")])
        frame.FrameContentSequence = Items([Dataset()])
        for keyword, values in rows.items():
            setattr(frame.FrameContentSequence[0], keyword, values[z])
        data.PerFrameFunctionalGroupsSequence.append(frame)
    for keyword in ("ImagePositionPatient", "RescaleSlope", "RescaleIntercept"):
        del data[keyword]
    if data.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian:
        data.PixelData = b"".join(series[z].PixelData for z in order)
    else:
        streams = [next(generate_frames(series[z].PixelData, number_of_frames=1)) for z in order]
        data.PixelData = encapsulate(streams)
        data["PixelData"].is_undefined_length = True
    return data


def _picked(data: Dataset, *keywords: str) -> Dataset:
    found = Dataset()
    for keyword in keywords:
        setattr(found, keyword, data[keyword].value)
    return found


def _moved(data: Dataset, *keywords: str) -> Dataset:
    found = _picked(data, *keywords)
    for keyword in keywords:
        del data[keyword]
    return found
