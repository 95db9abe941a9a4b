"""SUV by body weight: scales worked out by hand from QIBA's formula, with decimal arithmetic of 30 digits.

weight (g) / (dose (Bq) * 2 ** -(elapsed (s) / half-life (s)))

MIRP 2.7 (mirp.data_import) gives the same voxels of five such series (corrected to the start, to the injection, made
later, with a date of the injection, over midnight) to 7e-8, its single precision.
"""

import copy

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from cohortium.client.imaging.case import CaseFiles, Recipe
from cohortium.client.imaging.dicom_series import read_slices, series_findings, slice_files
from cohortium.client.imaging.examine import examine
from cohortium.client.imaging.one_image import Settings, features_of
from cohortium.client.imaging.read import read_image
from cohortium.client.imaging.suv import suv_factor
from cohortium.common.errors import CaseError, StudyError
from cohortium.common.study import parse_study
from cohortium.common.study_images import Image, MaskRegion
from cohortium.sites.site_file import MaskFile
from tests.client.imaging.dicom_phantom import pet, write_series

SHAPE = (4, 5, 6)
VALUES = np.random.default_rng(0).integers(0, 30_000, SHAPE).astype(np.int16)
ONE_HOUR = 0.000276336681717643232687684928942  # 70 kg, 370 MBq, 3,600 s of 6,586.2 s
HALF_AN_HOUR = 0.000228648010613239237386870331091
AT_INJECTION = 0.000189189189189189189189189189189  # 70,000 / 370,000,000
THREE_DAYS = 0.000357562079943927636044102953113  # of 282,241 s (Zr-89)
MEAN_OF_FRAME_S = 119.747419697363624764351005918  # 1/k ln(kT / (1 - exp(-kT))), T = 240 s, k = ln 2 / 6,586.2 s
EXACT = 1e-12  # a few roundings of double precision


def factor(series):
    return suv_factor([(data, f"{z}.dcm") for z, data in enumerate(series)])


def injected(series, **elements):
    for data in series:
        for keyword, value in elements.items():
            setattr(data.RadiopharmaceuticalInformationSequence[0], keyword, value)
    return series


def private(series, group, creator, element, vr, value):
    for data in series:
        data.private_block(group, creator, create=True).add_new(element, vr, value)
    return series


def test_the_activity_at_the_start_of_the_scan():
    assert factor(pet(VALUES)) == pytest.approx(ONE_HOUR, rel=EXACT)


def test_the_activity_at_the_injection():
    series = pet(VALUES, DecayCorrection="ADMIN")
    for data in series:
        del data.SeriesTime  # nothing decays, so no time is needed
    assert factor(series) == pytest.approx(AT_INJECTION, rel=EXACT)


def test_a_bed_position_later_is_corrected_to_the_start_of_the_series():
    series = pet(VALUES)
    for z, data in enumerate(series):
        data.AcquisitionTime = f"1000{10 + z}"
    assert factor(series) == pytest.approx(ONE_HOUR, rel=EXACT)


def test_over_midnight():
    series = injected(pet(VALUES), RadiopharmaceuticalStartTime="233000.5")
    for data in series:
        data.SeriesTime = data.AcquisitionTime = "000000.5"
    assert factor(series) == pytest.approx(HALF_AN_HOUR, rel=EXACT)


@pytest.mark.parametrize("start", ["20200314093000", "20200314093000.000000+0100", "20200315093000"])
def test_date_and_time_of_the_injection_come_first_where_they_can_be(start):
    """A date on which the patient had been scanned already is wrong; of F-18 the clock is enough."""
    series = injected(pet(VALUES), RadiopharmaceuticalStartDateTime=start, RadiopharmaceuticalStartTime="093000")
    assert factor(series) == pytest.approx(HALF_AN_HOUR, rel=EXACT)


def test_a_nuclide_of_days_needs_its_date():
    series = injected(pet(VALUES), RadionuclideHalfLife=282_241, RadiopharmaceuticalStartTime="100000")
    assert reason(series) == ("image has times of injection and scan that do not fit", "0018,1078")
    injected(series, RadiopharmaceuticalStartDateTime="20200311100000")
    assert factor(series) == pytest.approx(THREE_DAYS, rel=EXACT)


def test_a_series_made_later_is_corrected_to_the_scan():
    """As GE says in an element of its own, as the frame's reference time says, or to the first slice."""
    series = pet(VALUES, SeriesTime="150000")
    assert factor(series) == pytest.approx(ONE_HOUR, rel=EXACT)
    for data in series:  # the second bed position of a scan that began at 9:30
        data.FrameReferenceTime, data.ActualFrameDuration = (1800 + MEAN_OF_FRAME_S) * 1000, 240_000
    assert factor(series) == pytest.approx(HALF_AN_HOUR, rel=1e-9)  # datetime counts microseconds
    private(series, 0x0009, "GEMS_PETD_01", 0x0D, "DT", "20200314100000.00")
    assert factor(series) == pytest.approx(ONE_HOUR, rel=EXACT)


def test_counts_of_philips():
    series = private(pet(VALUES, Units="CNTS"), 0x7053, "Philips PET Private Group", 0x09, "DS", "2.5")
    assert factor(series) == pytest.approx(2.5 * ONE_HOUR, rel=EXACT)
    private(series, 0x7053, "Philips PET Private Group", 0x00, "DS", "0.000551")
    assert factor(series) == 0.000551
    assert reason(pet(VALUES, Units="CNTS")) == ("image is in units without SUV", "0054,1001")


def test_suv_as_stored():
    series = [Dataset() for _ in SHAPE]
    for data in series:
        data.Units = "GML"
    assert factor(series) == 1
    for data in series:
        data.SUVType = "LBM"
    assert reason(series) == ("image is SUV by another norm than body weight", "0054,1006")


def reason(series):
    with pytest.raises(CaseError) as error:
        factor(series)
    return error.value.reason, error.value.detail.split("(")[1].split(")")[0]


LACKS = "image lacks what SUV is computed from"
NOT_TO = "image is not corrected for decay to the injection or the scan"
UNIT = "image has a weight or activity in another unit than DICOM's"
NO_FIT = "image has times of injection and scan that do not fit"


@pytest.mark.parametrize(
    ("elements", "of_injection", "expected"),
    [
        ({"PatientWeight": None}, {}, (LACKS, "0010,1030")),
        ({"PatientWeight": 0}, {}, (LACKS, "0010,1030")),
        ({"Units": ""}, {}, (LACKS, "0054,1001")),
        ({"Units": "PROPCNTS"}, {}, ("image is in units without SUV", "0054,1001")),
        ({"DecayCorrection": "NONE"}, {}, (NOT_TO, "0054,1102")),
        ({"CorrectedImage": ["DECY"]}, {}, ("image is not corrected for attenuation and decay", "0028,0051")),
        ({"SeriesDate": ""}, {}, (LACKS, "0008,0021")),
        ({"SeriesTime": ""}, {}, (LACKS, "0008,0031")),
        ({"AcquisitionTime": "soon"}, {}, (LACKS, "0008,0032")),
        ({"RadiopharmaceuticalInformationSequence": []}, {}, (LACKS, "0054,0016")),
        ({}, {"RadionuclideTotalDose": None}, (LACKS, "0018,1074")),
        ({}, {"RadionuclideTotalDose": 370}, (UNIT, "0018,1074")),
        ({"PatientWeight": 70_000}, {}, (UNIT, "0010,1030")),
        ({}, {"RadionuclideHalfLife": None}, (LACKS, "0018,1075")),
        ({}, {"RadiopharmaceuticalStartTime": None}, (LACKS, "0018,1072")),
        ({}, {"RadiopharmaceuticalStartTime": "110000"}, (NO_FIT, "0018,1078")),
    ],
)  # fmt: skip
def test_what_is_not_said_is_not_guessed(elements, of_injection, expected):
    series = pet(VALUES, **{k: v for k, v in elements.items() if v != []})
    if elements.get("RadiopharmaceuticalInformationSequence") == []:
        for data in series:
            del data.RadiopharmaceuticalInformationSequence
    assert reason(injected(series, **of_injection) if of_injection else series) == expected


def test_slices_of_two_scales_or_injections():
    series = pet(VALUES)
    series[2].PatientWeight = 71
    assert reason(series) == ("image has slices of several SUV scales", "0010,1030")
    series = pet(VALUES)
    for data in series:
        again = copy.deepcopy(data.RadiopharmaceuticalInformationSequence[0])
        data.RadiopharmaceuticalInformationSequence.append(again)
    assert reason(series) == ("image was made after several injections", "0054,0016")


def test_values_of_a_series_with_slopes_of_its_slices(tmp_path):
    series = pet(VALUES)
    slopes = np.array([0.5, 1.25, 2.0, 0.125])
    for data, slope in zip(series, slopes, strict=True):
        data.RescaleSlope = slope
    folder = write_series(tmp_path, series)
    suv = sitk.GetArrayFromImage(read_image(folder, "PET", "suv_bw"))
    assert np.allclose(suv, VALUES * slopes[:, None, None] * ONE_HOUR, rtol=EXACT)
    stored = sitk.GetArrayFromImage(read_image(folder, "PET"))
    assert np.array_equal(stored, VALUES * slopes[:, None, None])


def test_no_doubt_where_it_is_converted(tmp_path):
    folder = write_series(tmp_path, pet(VALUES))
    found = [given for file in slice_files(folder) for given in read_slices(file, "image")]
    assert [f.reason for f in series_findings(found, "image", "PET")] == ["image is not in SUV"]
    assert series_findings(found, "image", "PET", "suv_bw") == []


def look(image, units, mask):
    recipe = Recipe({"pet": Image(modality="PET", units=units)}, {"tumour": MaskRegion()}, {})
    place = ("pet", "tumour")
    return examine(CaseFiles("p", {"pet": image}, {place: mask}, {place: MaskFile(path="{patient_id}")}), recipe)


def test_other_formats_are_taken_as_suv_and_that_is_told(tmp_path):
    rng = np.random.default_rng(0)
    sitk.WriteImage(sitk.GetImageFromArray(rng.uniform(0, 9, (5, 9, 9))), tmp_path / "pet.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 9, 9), np.uint8)), tmp_path / "mask.nii.gz")
    told = look(tmp_path / "pet.nii.gz", "suv_bw", tmp_path / "mask.nii.gz").findings
    assert told == [("image does not say its units; taken as SUV", str(tmp_path / "pet.nii.gz"), False)]
    assert look(tmp_path / "pet.nii.gz", None, tmp_path / "mask.nii.gz").findings == []
    settings = Settings(modality="PET", units="suv_bw", bin_count=8, classes=("firstorder",))
    features_of(tmp_path / "pet.nii.gz", tmp_path / "mask.nii.gz", settings)


def test_a_series_that_cannot_be_converted_is_a_finding_without_a_value(tmp_path):
    folder = write_series(tmp_path / "pet", pet(VALUES, PatientWeight=None))
    mask = sitk.GetImageFromArray(np.ones(SHAPE, np.uint8))
    mask.CopyInformation(read_image(folder, "PET"))
    sitk.WriteImage(mask, tmp_path / "mask.nii.gz")
    ((told, where, refuses),) = look(folder, "suv_bw", tmp_path / "mask.nii.gz").findings
    assert (told, refuses) == (LACKS, True)
    assert where.endswith("(0010,1030) Patient's Weight")


STUDY = {
    "study": {"name": "s", "primary": "y"},
    "endpoint": {"y": {"kind": "binary", "column": "y"}},
    "region": {"tumour": {}},
    "features": {"r": {"kind": "radiomics", "images": ["pet"], "regions": ["tumour"], "bin_count": 8}},
    "split": {"train": ["a", "b", "c"]},
    "model": {"m": {"kind": "logistic", "predictors": ["features.r"]}},
}  # fmt: skip


def test_the_key_is_part_of_a_study_only_where_it_is_used():
    plain = parse_study({**STUDY, "image": {"pet": {"modality": "PET"}}})
    suv = parse_study({**STUDY, "image": {"pet": {"modality": "PET", "units": "suv_bw"}}})
    assert b"units" not in plain.canonical
    assert plain.hash != suv.hash
    with pytest.raises(StudyError, match="belongs to PET"):
        parse_study({**STUDY, "image": {"pet": {"modality": "CT", "units": "suv_bw"}}})
