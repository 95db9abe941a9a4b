"""Cohort files: readable by the code that reads a hospital's, identical in every run."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from cohortium.common.errors import StudyError
from cohortium.common.progress import Progress
from cohortium.simulation import studies, synthetic
from cohortium.simulation.cohort_files import generate
from cohortium.simulation.synthetic_plan import read_plan
from cohortium.sites.site_file import load_site

GASTRIC = Path(studies.__path__[0]) / "gastric"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> dict[str, Path]:
    return generate(GASTRIC, tmp_path_factory.mktemp("cohort"), seed=7, patients=20)


def test_a_site_file_leads_to_rows_and_images(cohort):
    assert list(cohort) == ["harbour", "lakeside", "valley", "highland"]
    plan = read_plan(GASTRIC)
    site = load_site(cohort["lakeside"])
    assert site.name == "lakeside"
    with site.patients_file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["patient_id"] for row in rows] == [f"lakeside-{i:04d}" for i in range(1, 6)]
    for number, row in enumerate(rows):
        image = sitk.ReadImage(str(site.image_file("ct", row["patient_id"])))
        mask = sitk.ReadImage(str(site.mask_file("ct", "tumour", row["patient_id"])))
        expected = synthetic.imaging(plan, plan.site[1], number, seed=7)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected.image)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), expected.mask)
        assert image.GetSpacing() == mask.GetSpacing() == (4.0, 4.0, 5.0)
        assert image.GetOrigin() == mask.GetOrigin() == (-126.0, -126.0, -77.5)


def test_the_bytes_are_the_same_in_every_run(cohort, tmp_path):
    again = generate(GASTRIC, tmp_path, seed=7, patients=20)
    first = cohort["valley"].parent
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 2 + 2 * 4
    for file in files:
        assert (first / file).read_bytes() == (again["valley"].parent / file).read_bytes()


def test_other_numbers_of_sites_and_patients(tmp_path):
    stream = io.StringIO()
    files = generate(GASTRIC, tmp_path, seed=7, patients=6, sites=4, progress=Progress(stream=stream))
    assert list(files) == ["harbour", "lakeside", "valley", "site_004", "highland"]
    assert "6 of 6" in stream.getvalue()
    rows = sum(len(path.with_name("patients.csv").read_text().splitlines()) - 1 for path in files.values())
    assert rows == 6
    with pytest.raises(StudyError, match="at least 1"):
        generate(GASTRIC, tmp_path, seed=7, patients=0)
