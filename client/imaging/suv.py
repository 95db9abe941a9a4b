"""SUV: the number by which a PET series is multiplied to become standardised uptake values by body weight.

    SUV = activity concentration (Bq/ml) * weight (g) / injected activity at the time the values are corrected to (Bq)

After the vendor-neutral pseudo-code of the Quantitative Imaging Biomarkers Alliance (QIBA, FDG-PET/CT, "happy path" and
robust version). What is not said by the files is not guessed: the finding names file and tag, never the value.
"""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

from pydicom.dataset import Dataset
from pydicom.valuerep import DT

from cohortium.client.imaging import dicom_file
from cohortium.client.imaging.findings import Finding

LONGEST = 10
"""Half-lives between injection and scan: beyond, a thousandth is left and a date is wrong. No date is needed where
they pass within a day."""
CLOCK = re.compile(r"\d{10}(\d\d){0,2}(\.\d{1,6})?([+-]\d{4})?")
"""Date and time of a day as DICOM writes them; pydicom takes whatever follows a date."""
GE_SCAN = (0x0009, "GEMS_PETD_01", 0x0D)
PHILIPS_SUV, PHILIPS_ACTIVITY = ((0x7053, "Philips PET Private Group", element) for element in (0x00, 0x09))
OF_ALL = (
    "Units", "SUVType", "CorrectedImage", "DecayCorrection", "PatientWeight", "SeriesDate", "SeriesTime",
    "RadiopharmaceuticalInformationSequence",
)  # fmt: skip
"""What all slices must say alike."""

POSSIBLE = {"PatientWeight": (1e-3, 1e3), "RadionuclideTotalDose": (1e5, 1e11)}
"""kg and Bq, of mice and men: what lies beyond is in another unit (g, MBq), as some scanners wrote it."""

Private = tuple[int, str, int]


class Source:
    """A slice's header that names its file when it lacks something."""

    def __init__(self, header: Dataset, file: Path, role: str) -> None:
        self.header, self.file, self.role = header, file, role

    def refuse(self, keyword: str, reason: str = "lacks what SUV is computed from") -> NoReturn:
        """Exclude the case."""
        raise Finding(reason=f"{self.role} {reason}", file=self.file, tag=dicom_file.tag(keyword), refuses=True).error

    def positive(self, data: Dataset, keyword: str) -> float:
        """A number above 0."""
        try:
            value = float(data.get(keyword) or 0)
        except (TypeError, ValueError):
            value = math.nan
        if not 0 < value < math.inf:
            self.refuse(keyword)
        low, high = POSSIBLE.get(keyword, (0.0, math.inf))
        if not low <= value <= high:
            self.refuse(keyword, "has a weight or activity in another unit than DICOM's")
        return value

    def private(self, place: Private) -> str:
        """An element of a vendor as text; empty where there is none."""
        group, creator, element = place
        try:
            value = self.header.private_block(group, creator)[element].value
        except KeyError:
            return ""
        return str(value.decode("ascii") if isinstance(value, bytes) else value).strip().strip("\0")

    def moment(self, date: str, time: str, both: str = "") -> datetime:
        """Date and time of two elements, or of one that holds both."""
        day, clock = dicom_file.text(self.header, date), dicom_file.text(self.header, time)
        try:
            if both and (whole := dicom_file.text(self.header, both)):
                return _clock(whole)
            if not day or not clock:
                self.refuse(time if day else date)
            return _clock(day + clock)
        except ValueError:
            self.refuse(time)


def suv_factor(slices: Sequence[tuple[Dataset, Path]], role: str = "image") -> float:
    """SUV by body weight of a series per unit of its rescaled values, g/ml.

    Parameters
    ----------
    slices : sequence of (header, file)

    Raises
    ------
    CaseError
        ``image lacks what SUV is computed from``, ``image is in units without SUV`` and their kin.
    """
    sources = [Source(header, file, role) for header, file in slices]
    with dicom_file.damaged(slices[0][1], role):
        first = sources[0]
        for other in sources:
            for keyword in OF_ALL:
                if other.header.get(keyword) != first.header.get(keyword):
                    other.refuse(keyword, "has slices of several SUV scales")
            for place in (PHILIPS_SUV, PHILIPS_ACTIVITY):
                if other.private(place) != first.private(place):
                    other.refuse("Units", "has slices of several SUV scales")
        return _factor(first, sources)


def _factor(source: Source, series: Sequence[Source]) -> float:
    header, units = source.header, dicom_file.text(source.header, "Units")
    if units == "GML":
        if dicom_file.text(header, "SUVType") not in ("", "BW"):
            source.refuse("SUVType", "is SUV by another norm than body weight")
        return 1.0
    if units not in ("BQML", "CNTS"):
        source.refuse("Units", "is in units without SUV" if units else "lacks what SUV is computed from")
    if not {"ATTN", "DECY"} <= set(header.get("CorrectedImage") or ()):
        source.refuse("CorrectedImage", "is not corrected for attenuation and decay")
    activity = 1.0
    if units == "CNTS":
        if factor := _number(source.private(PHILIPS_SUV)):
            return factor
        activity = _number(source.private(PHILIPS_ACTIVITY))
        if not activity:
            source.refuse("Units", "is in units without SUV")
    weight_g = 1000 * source.positive(header, "PatientWeight")
    return activity * weight_g / _activity_left(source, series)


def _activity_left(source: Source, series: Sequence[Source]) -> float:
    """Bq of the injection at the time that the values are corrected to."""
    injections = source.header.get("RadiopharmaceuticalInformationSequence") or ()
    if len(injections) != 1:
        several = "was made after several injections"
        source.refuse("RadiopharmaceuticalInformationSequence", *[several] if injections else [])
    injected = source.positive(injections[0], "RadionuclideTotalDose")
    corrected_to = dicom_file.text(source.header, "DecayCorrection")
    if corrected_to == "ADMIN":
        return injected
    if corrected_to != "START":
        source.refuse("DecayCorrection", "is not corrected for decay to the injection or the scan")
    half_life_s = source.positive(injections[0], "RadionuclideHalfLife")
    elapsed_s = _elapsed_s(source, injections[0], _scan_start(series, half_life_s), half_life_s)
    return injected * 2 ** (-elapsed_s / half_life_s)


def _elapsed_s(source: Source, injection: Dataset, scan: datetime, half_life_s: float) -> float:
    """Seconds from the injection to the start of the scan."""
    try:
        if text := dicom_file.text(injection, "RadiopharmaceuticalStartDateTime"):
            elapsed = (scan - _clock(text)).total_seconds()
            if 0 <= elapsed <= LONGEST * half_life_s:
                return elapsed
        # Dates are often shifted or wrong, one without the other; of a short-lived nuclide the clock says enough
        clock = dicom_file.text(injection, "RadiopharmaceuticalStartTime")
        if clock and timedelta(seconds=LONGEST * half_life_s) <= timedelta(days=1):
            start = _clock(f"{scan:%Y%m%d}{clock}")
            elapsed = (scan - start).total_seconds() % timedelta(days=1).total_seconds()  # over midnight
            if elapsed <= LONGEST * half_life_s:
                return elapsed
    except ValueError:
        source.refuse("RadiopharmaceuticalStartTime")
    if text or clock:
        return source.refuse("RadiopharmaceuticalStartDateTime", "has times of injection and scan that do not fit")
    return source.refuse("RadiopharmaceuticalStartTime")


def _scan_start(series: Sequence[Source], half_life_s: float) -> datetime:
    """What the values are corrected to: the start of the series, even where another series was made of it later."""
    begun = [(_acquired(source), number) for number, source in enumerate(series)]
    acquired, number = min(begun)
    first = series[number]
    stated = first.moment("SeriesDate", "SeriesTime")
    if stated <= acquired:
        return stated
    # Processed later: the series has the date of that
    if scan := first.private(GE_SCAN):
        return _clock(scan)
    offset_s, duration_s = (
        _number(dicom_file.text(first.header, keyword)) / 1000
        for keyword in ("FrameReferenceTime", "ActualFrameDuration")
    )
    if offset_s > 0 and duration_s > 0:
        # The frame's reference time is when its activity is that of its mean count rate
        decay = math.log(2) / half_life_s
        mean_s = math.log(decay * duration_s / -math.expm1(-decay * duration_s)) / decay
        return acquired + timedelta(seconds=mean_s - offset_s)
    return acquired


def _acquired(source: Source) -> datetime:
    if source.header.get("FrameAcquisitionDateTime"):
        return source.moment("AcquisitionDate", "AcquisitionTime", "FrameAcquisitionDateTime")
    whole = "" if source.header.get("AcquisitionTime") else "AcquisitionDateTime"
    return source.moment("AcquisitionDate", "AcquisitionTime", whole)


def _clock(text: str) -> datetime:
    """The date and time on the scanner's clock: an offset from UTC is that of the same clock.

    Raises
    ------
    ValueError
        It is no date with a time.
    """
    moment = DT(text) if CLOCK.fullmatch(text) else None
    if moment is None:
        raise ValueError("no date with a time")
    return datetime.fromisoformat(moment.isoformat()).replace(tzinfo=None)


def _number(text: str) -> float:
    """A number that may be missing: then 0.

    Raises
    ------
    ValueError
        It is no finite number, or negative.
    """
    value = float(text or 0)
    if not 0 <= value < math.inf:
        raise ValueError("not a number")
    return value
