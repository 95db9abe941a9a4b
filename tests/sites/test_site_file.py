"""The site file: paths start from it, and each mistake is named with its remedy."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohortium.common.errors import SiteError
from cohortium.common.study import load_study
from cohortium.sites.image_files import case_files, check_patterns, missing_files
from cohortium.sites.site_file import load_site, parse_site
from cohortium.sites.site_template import site_template

STUDIES = Path(__file__).parents[1] / "data" / "studies"
MINIMAL = {"site": {"name": "va"}, "data": {"patients": "p.csv"}}
PET = {
    "image": "{patient_id}/PET.nii.gz",
    "mask": {"tumour": "{patient_id}/mask.nii.gz"},
}


def test_paths_start_from_the_file(tmp_path):
    (tmp_path / "site.toml").write_text('[site]\nname = "va"\n[data]\npatients = "../p.csv"\n[images.pet]\n')
    with pytest.raises(SiteError, match=r"\[images.pet\] image: required key is missing; add it"):
        load_site(tmp_path)
    (tmp_path / "site.toml").write_text(
        '[site]\nname = "va"\n[data]\npatients = "../p.csv"\n'
        '[images.pet]\nimage = "{patient_id}/i.nii.gz"\nmask.tumour = "/m/{patient_id}.nii.gz"\n'
    )
    site = load_site(tmp_path / "site.toml")
    assert site.patients_file.resolve() == tmp_path.parent / "p.csv"
    assert site.image_file("pet", "p1") == tmp_path / "p1" / "i.nii.gz"
    assert site.mask_file("pet", "tumour", "p1") == Path("/m/p1.nii.gz")
    assert site.workspace == tmp_path / "workspace"
    moved = site.with_workspace(tmp_path / "elsewhere")
    assert moved.workspace == tmp_path / "elsewhere"
    assert moved.patients_file == site.patients_file


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "site: required key is missing; add it"),
        ({**MINIMAL, "site": {"nme": "va"}}, "[site] nme: unknown key; did you mean 'name'?"),
        ({**MINIMAL, "site": {"name": "va", "device": "gpu"}}, "[site] device = 'gpu': should be cpu, cuda or cuda:N"),
        ({**MINIMAL, "site": {"name": "va", "opt_ins": ["event_time"]}}, "did you mean 'event_time_days'?"),
        ({**MINIMAL, "data": {"patients": "p.csv", "codes": {"sex": {"M": True}}}}, "should be a number or a text"),
        ({**MINIMAL, "data": {"patients": "p.csv", "encoding": "utf8"}}, "did you mean 'utf-8'?"),
        ({**MINIMAL, "images": {"ct": {"image": "ct.nii"}}}, "needs the placeholder {patient_id} and no other"),
        ({**MINIMAL, "images": {"ct": {"image": "{patient_id}/{series}"}}}, "needs the placeholder {patient_id}"),
        ({**MINIMAL, "images": {"ct": {**PET, "masks": {}}}}, "[images.ct.masks] unknown key; did you mean 'mask'?"),
    ],
)
def test_mistakes_are_named(tables, message):
    with pytest.raises(SiteError) as caught:
        parse_site(tables, source="hospital/site.toml")
    assert str(caught.value).startswith("hospital/site.toml")
    assert message in str(caught.value)


WORDS = st.sampled_from(
    ["site", "data", "images", "name", "patients", "codes", "where", "ct", "image", "mask", "", "\0"]
)
VALUES = st.recursive(
    WORDS | st.integers() | st.floats() | st.booleans() | st.dates() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(WORDS, VALUES, max_size=4), st.booleans())
def test_random_tables_give_a_site_or_a_site_error(tables, complete):
    try:
        parse_site({**MINIMAL, **tables} if complete else tables)
    except SiteError as error:
        told = str(error)
    else:
        told = "site.toml"
    assert told.startswith("site.toml")


def test_image_patterns_and_files_of_a_case(tmp_path):
    study = load_study(STUDIES / "sarcoma")
    images = dict.fromkeys(("pet", "ct"), PET)
    with pytest.raises(SiteError, match=r"\[images.mr\] is missing; add it"):
        check_patterns(study, parse_site({**MINIMAL, "images": images}))
    with pytest.raises(SiteError, match=r"\[images.mr\] mask.tumour is missing; add it"):
        check_patterns(study, parse_site({**MINIMAL, "images": {**images, "mr": {"image": PET["image"]}}}))
    site = parse_site({**MINIMAL, "images": {**images, "mr": PET}}, folder=tmp_path)
    check_patterns(study, site)
    files = case_files(study, site, "p1")
    assert files["mr"].masks == {"tumour": tmp_path / "p1" / "mask.nii.gz"}
    assert missing_files(study, site, "p1").reason == "pet image is missing"
    (tmp_path / "p1").mkdir()
    files["pet"].image.touch()
    assert missing_files(study, site, "p1").reason == "tumour mask on pet is missing"
    files["pet"].masks["tumour"].touch()
    assert missing_files(study, site, "p1") is None


def test_a_folder_that_may_not_be_read_stops_the_site(tmp_path, monkeypatch):
    site = parse_site({**MINIMAL, "images": dict.fromkeys(("pet", "ct", "mr"), PET)}, folder=tmp_path)

    def denied(_, **__):
        raise PermissionError(13, "Permission denied")

    study = load_study(STUDIES / "sarcoma")
    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(SiteError, match=r"pet image .*cannot be read \(Permission denied\); give this user permission"):
        missing_files(study, site, "p1")


@pytest.mark.parametrize("name", ["uci_heart", "tcga_brca", "sarcoma"])
def test_the_template_is_a_valid_site_file_for_its_study(tmp_path, name):
    study = load_study(STUDIES / name)
    (tmp_path / "site.toml").write_text(site_template(study.split.train[0], study))
    check_patterns(study, load_site(tmp_path))
    (tmp_path / "site.toml").write_text(site_template("any"))
    assert load_site(tmp_path).name == "any"
