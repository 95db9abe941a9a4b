"""A hospital's rows: each unusable one is excluded with one reason, the rest goes on; a broken file stops the site."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohortium.common.errors import SiteError
from cohortium.common.study import load_study, parse_study
from cohortium.sites.flow import Exclusion
from cohortium.sites.patients import read_patients
from cohortium.sites.site_file import parse_site

STUDIES = Path(__file__).parents[1] / "data" / "studies"
CHECKOUT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("COHORTIUM_REFERENCE_DATA", CHECKOUT.parent / "shared" / "reference"))
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="reference data is absent; set COHORTIUM_REFERENCE_DATA"
)

STUDY = {
    "study": {"name": "s", "primary": "relapse", "seed": 1},
    "endpoint": {
        "relapse": {"kind": "binary", "column": "relapse"},
        "survival": {"kind": "survival", "time": "months", "event": "death", "unit": "months"},
    },
    "variable": [
        {"name": "age", "kind": "continuous", "range": [18, 110]},
        {"name": "stage", "kind": "categorical", "levels": ["I", "II", 3]},
        {"name": "cea", "kind": "continuous", "missing": "median"},
    ],
    "split": {"train": ["a", "b", "c"]},
    "model": {"m": {"kind": "logistic", "predictors": ["age", "stage"]}},
}
COLUMNS = ["patient_id", "age", "stage", "cea", "relapse", "months", "death"]
GOOD = ["50", "I", "1.5", "1", "12", "0"]


def read(tmp_path: Path, rows: list[list[str]], *, split: dict | None = None, columns=COLUMNS, **data):
    text = "\n".join(",".join(row) for row in [columns, *rows])
    (tmp_path / "patients.csv").write_text(text + "\n")
    site = {"site": {"name": "a"}, "data": {"patients": "patients.csv", **data}}
    return read_patients(parse_study(STUDY | ({"split": split} if split else {})), parse_site(site, folder=tmp_path))


@needs_reference
@pytest.mark.parametrize(
    ("study", "column", "sites", "parts"),
    [
        # counts of study-format.md: 558 train, 239 internal
        ("uci_heart", "hospital", {}, {"train": 558, "internal": 239, "external": 123}),
        # the benchmark's own split: 866 train, 222 test
        ("tcga_brca", "site", str.capitalize, {"train": 866, "internal": 222}),
        ("sarcoma", "site", {}, {"train": 51}),
    ],
)
def test_the_parts_of_real_cohorts(study, column, sites, parts):
    agreed, counts = load_study(STUDIES / study), pd.Series(dtype=int)
    local = {"chest_pain": "cp", "max_heart_rate": "thalach", "exercise_angina": "exang", "st_depression": "oldpeak"}
    for name in agreed.sites:
        data = {
            "patients": str(REFERENCE / study / "patients.csv"),
            "where": {column: sites(name) if sites else name},
            "columns": local if study == "uci_heart" else {},
        }
        patients = read_patients(agreed, parse_site({"site": {"name": name}, "data": data}))
        counts = counts.add(pd.Series(patients.counts_by_part), fill_value=0)
        assert patients.flow.excluded == {}
    assert counts.to_dict() == parts


def test_columns_are_in_the_study_s_units_and_codes(tmp_path):
    frame = read(tmp_path, [["p1", *GOOD], ["p2", "60", "3.0", "", "0", "0", "0"]]).frame
    assert list(frame.columns) == [
        *("patient_id", "part", "age", "stage", "cea"),
        *("endpoint.relapse", "endpoint.survival.time", "endpoint.survival.event"),
    ]
    assert frame["stage"].tolist() == [0.0, 2.0]
    assert frame["endpoint.survival.time"].tolist() == [12.0, 0.0]  # censored at time 0: kept
    assert np.isnan(frame["cea"][1])
    assert frame["part"].tolist() == ["train", "train"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"age": ""}, "age is missing"),
        ({"age": "NA"}, "age is missing"),
        ({"age": "430"}, "age out of range"),
        ({"age": "fifty"}, "age is not a number"),
        ({"age": "5_0"}, "age is not a number"),
        ({"age": "inf"}, "age is not a number"),
        ({"cea": "<0.5"}, "cea is not a number"),
        ({"stage": "IV"}, "unknown level of stage"),
        ({"stage": "i"}, "unknown level of stage"),
        ({"relapse": ""}, "relapse is missing"),
        ({"relapse": "2"}, "unknown value of relapse"),
        ({"months": "-1"}, "months is negative"),
        ({"months": "0", "death": "1"}, "event at months 0"),
        ({"months": ""}, "months is missing"),
        ({"death": "yes"}, "death is not 0 or 1"),
        ({"patient_id": ""}, "patient_id is missing"),
        ({"patient_id": "p1"}, "patient is given more than once"),
    ],
)
def test_a_bad_case_is_excluded_and_the_rest_goes_on(tmp_path, change, reason):
    bad = list((dict(zip(COLUMNS, ["p2", *GOOD], strict=True)) | change).values())
    patients = read(tmp_path, [["p1", *GOOD], bad, ["p3", *GOOD]])
    copies = 2 if change.get("patient_id") == "p1" else 1
    assert patients.flow.excluded == {reason: copies}
    assert patients.flow.given == 3
    assert len(patients.frame) == 3 - copies
    assert "430" not in reason


def test_patients_are_sorted_whatever_the_order_of_the_file(tmp_path):
    frame = read(tmp_path, [["p2", *GOOD], ["p10", *GOOD], ["p1", *GOOD]]).frame
    assert frame["patient_id"].tolist() == ["p1", "p10", "p2"]
    assert frame.index.tolist() == [0, 1, 2]


def test_numbers_keep_their_last_digit(tmp_path):
    written = [repr(value) for value in np.random.default_rng(1).uniform(18, 110, 200).tolist()]
    frame = read(tmp_path, [[f"p{i:03}", age, *GOOD[1:]] for i, age in enumerate(written)]).frame
    assert frame["age"].tolist() == [float(text) for text in written]


def test_local_names_codes_and_number_format(tmp_path):
    (tmp_path / "p.csv").write_text("Fall;Alter;Stadium;CEA;Rez;Mon;Tod\n1;50,5;eins;-9;ja;3;0\n2;61;II;2,5;nein;4;1\n")
    data = {
        "patients": "p.csv",
        "id_column": "Fall",
        "delimiter": ";",
        "decimal": ",",
        "missing_codes": ["", "-9"],
        "columns": {
            "age": "Alter",
            "stage": "Stadium",
            "cea": "CEA",
            "relapse": "Rez",
            "months": "Mon",
            "death": "Tod",
        },
        "codes": {"stage": {"eins": "I"}, "relapse": {"ja": 1, "nein": 0}},
    }
    patients = read_patients(parse_study(STUDY), parse_site({"site": {"name": "a"}, "data": data}, folder=tmp_path))
    assert patients.exclusions == ()
    assert patients.frame[["age", "stage", "endpoint.relapse"]].to_numpy().tolist() == [[50.5, 0, 1], [61, 1, 0]]
    assert np.isnan(patients.frame["cea"][0])


def test_typed_files_give_the_same_patients(tmp_path):
    rows = [["p1", *GOOD], ["p2", "61.25", "3", "", "0", "3", "1"]]
    expected = read(tmp_path, rows).frame
    frame = pd.DataFrame(rows, columns=COLUMNS)
    typed = frame.assign(
        **{name: pd.to_numeric(frame[name]) for name in ("age", "cea", "months")},
        relapse=frame["relapse"] == "1",
        death=frame["death"].astype(int),
    )
    typed.to_parquet(tmp_path / "patients.parquet")
    site = parse_site({"site": {"name": "a"}, "data": {"patients": "patients.parquet"}}, folder=tmp_path)
    pd.testing.assert_frame_equal(read_patients(parse_study(STUDY), site).frame, expected)


def test_an_unknown_or_missing_part_is_excluded(tmp_path):
    split = {"train": ["a", "b", "c"], "part_column": {"column": "part_of", "train": 0, "internal": 1}}
    rows = [["p1", *GOOD, "0"], ["p2", *GOOD, "1.0"], ["p3", *GOOD, ""], ["p4", *GOOD, "2"]]
    patients = read(tmp_path, rows, split=split, columns=[*COLUMNS, "part_of"])
    assert patients.counts_by_part == {"train": 1, "internal": 1}
    assert patients.flow.excluded == {"part_of is missing": 1, "part_of names no part of the study": 1}


def test_a_site_without_usable_patients_or_with_one_class_is_a_site(tmp_path):
    patients = read(tmp_path, [["p1", "430", *GOOD[1:]]])
    assert (patients.flow.used, len(patients.table())) == (0, 0)
    assert read(tmp_path, [["p1", *GOOD]]).counts_by_part == {"train": 1}


def test_other_positive_values(tmp_path):
    study = STUDY | {"endpoint": {"relapse": {"kind": "binary", "column": "relapse", "positive": "late"}}}
    (tmp_path / "p.csv").write_text("patient_id,age,stage,cea,relapse\n1,50,I,1,late\n2,50,I,1,early\n3,50,I,1,\n")
    site = parse_site({"site": {"name": "a"}, "data": {"patients": "p.csv"}}, folder=tmp_path)
    patients = read_patients(parse_study(study), site)
    assert patients.frame["endpoint.relapse"].tolist() == [1.0, 0.0]
    assert patients.flow.excluded == {"relapse is missing": 1}
    study["endpoint"]["relapse"]["negative"] = "never"
    assert read_patients(parse_study(study), site).flow.excluded["unknown value of relapse"] == 1


def test_folds_are_dealt_over_who_remains(tmp_path):
    rows = [[f"p{i}", *GOOD] for i in range(20)]
    split = {"train": ["a", "b", "c"], "folds": 4}
    patients = read(tmp_path, rows, split=split)
    assert np.bincount(patients.frame["fold"].astype(int)).tolist() == [5, 5, 5, 5]
    study = parse_study(STUDY | {"split": split})
    gone = [Exclusion(f"p{i}", "mask is empty") for i in range(4)]
    fewer = patients.without(gone, study)
    assert np.bincount(fewer.frame["fold"].astype(int)).tolist() == [4, 4, 4, 4]
    assert fewer.flow.excluded == {"mask is empty": 4}
    pd.testing.assert_frame_equal(fewer.frame, read(tmp_path, rows[4:], split=split).frame)


@pytest.mark.parametrize(
    ("content", "data", "message"),
    [
        (None, {}, "there is no such file; correct patients in the site file"),
        ("patient_id,age\n", {}, "column 'stage' is missing"),
        ("patient_id,Age,stage,cea,relapse,months,death\n", {}, "column 'age' is missing; did you mean 'Age'?"),
        (",".join(COLUMNS) + "\n", {}, "holds no row"),
        ("", {}, "cannot be parsed"),
        ("a,b\n1,2,3\n1\n", {}, "cannot be parsed"),
        (",".join(COLUMNS) + "\np1,50,I,1,1,1,1\n", {"where": {"age": 51}}, "no row matches where"),
        (",".join(COLUMNS) + "\np1,50,I,1,1,1,1\n", {"where": {"hospital": "va"}}, "column 'hospital' is missing"),
        (",".join([*COLUMNS, "age"]) + "\np1,50,I,1,1,1,1,2\n", {}, "column 'age' is there twice"),
    ],
)
def test_a_broken_file_stops_the_site(tmp_path, content, data, message):
    if content is not None:
        (tmp_path / "patients.csv").write_text(content)
    site = parse_site({"site": {"name": "a"}, "data": {"patients": "patients.csv", **data}}, folder=tmp_path)
    with pytest.raises(SiteError) as caught:
        read_patients(parse_study(STUDY), site)
    assert message in str(caught.value)
    assert "patient table" in str(caught.value)


def test_bytes_and_permissions_stop_the_site(tmp_path, monkeypatch):
    path = tmp_path / "patients.csv"
    path.write_bytes(",".join(COLUMNS).encode() + b"\np\xfc,50,I,1,1,1,1\n")
    site = parse_site({"site": {"name": "a"}, "data": {"patients": "patients.csv"}}, folder=tmp_path)
    with pytest.raises(SiteError, match="is not utf-8 text; set encoding"):
        read_patients(parse_study(STUDY), site)
    path.unlink()
    path.mkdir()
    with pytest.raises(SiteError, match="cannot be read"):
        read_patients(parse_study(STUDY), site)

    def denied(*_, **__):  # the administrator, who may run the tests, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pd, "read_csv", denied)
    with pytest.raises(SiteError, match="may not be read; give this user permission"):
        read_patients(parse_study(STUDY), site)


def test_a_site_of_another_study_stops(tmp_path):
    (tmp_path / "patients.csv").write_text(",".join(COLUMNS) + "\np1,50,I,1,1,1,1\n")
    site = parse_site({"site": {"name": "z"}, "data": {"patients": "patients.csv"}}, folder=tmp_path)
    with pytest.raises(SiteError, match="site 'z' is not in"):
        read_patients(parse_study(STUDY), site)
