"""Features that hinge on the contour leave: from raw images and perturbed contours to results.json and the report."""

import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from scipy import stats

from cohortium.common.study import load_study
from cohortium.common.table import Table, perturbed
from cohortium.server.releases import releases
from cohortium.simulation.preview import preview
from cohortium.simulation.simulate import simulate
from tests.client.imaging.volumes import ball, make
from tests.simulation.prepared import sums_sent

SITES, PATIENTS, CONTOURS = ("a", "b", "c"), 14, 3
STUDY = f"""
[study]
name = "contours"
primary = "outcome"
seed = 5

[[variable]]
name = "age"
kind = "continuous"

[endpoint.outcome]
kind = "binary"
column = "outcome"

[image.ct]
modality = "CT"

[region.tumour]

[features.radiomics]
kind = "radiomics"
images = ["ct"]
regions = ["tumour"]
classes = ["shape", "firstorder"]
bin_width = {{ ct = 10 }}
perturbations = {CONTOURS - 1}

[harmonise]
features = ["radiomics"]

[split]
train = {json.dumps(SITES)}
folds = 2

[model.stable]
kind = "logistic"
predictors = ["age", "features.radiomics"]
selection = [{{ method = "icc", minimum = 0.75 }}, {{ method = "screen", p = 0.5 }}, {{ method = "mrmr", keep = 2 }}]

[privacy]
score_resolution = "exact"
"""


def write_site(folder, site: int) -> None:
    """Tumours of several sizes, bright or dark; each site's scanner adds something."""
    rng = np.random.default_rng(site)
    rows = []
    for i in range(PATIENTS):
        inside = ball(shape=(12, 18, 22), radius_mm=rng.uniform(5, 9))
        image = rng.normal(0, 10, inside.shape) + 30 * site + np.where(inside, rng.uniform(20, 60), 0)
        case = folder / "images" / f"p{i}"
        case.mkdir(parents=True)
        sitk.WriteImage(make(image), case / "image.nrrd")
        sitk.WriteImage(make(inside.astype(np.uint8)), case / "mask.nrrd")
        rows.append({"patient_id": f"p{i}", "age": rng.normal(60, 9), "outcome": i % 2})
    pd.DataFrame(rows).to_csv(folder / "patients.csv", index=False)
    (folder / "site.toml").write_text(
        f'[site]\nname = "{SITES[site]}"\n[data]\npatients = "patients.csv"\n[images.ct]\n'
        'image = "images/{patient_id}/image.nrrd"\nmask = { tumour = "images/{patient_id}/mask.nrrd" }\n'
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("contours")
    for i, site in enumerate(SITES):
        write_site(place / "study" / "sites" / site, i)
    (place / "study" / "study.toml").write_text(STUDY)
    simulate(place / "study", place / "out")
    tables = [Table.read(next((place / "out" / "sites" / site / "prepared").glob("*/table.parquet"))) for site in SITES]
    return place / "out", json.loads((place / "out" / "results.json").read_text()), tables


def agreement(results) -> dict:
    return results["models"]["stable"]["notes"]["selection"][0]


def test_the_icc_is_the_pooled_one_of_the_values_as_measured(run):
    _, results, tables = run
    features = agreement(results)["features"]
    assert len(features) == 32 == agreement(results)["from"] - 1  # 14 of shape, 18 of first order; age has no contour
    for feature in features:
        names = [feature["feature"], *(perturbed(feature["feature"], n) for n in range(1, CONTOURS))]
        x = np.vstack([table.matrix(names)[table.part == "train"] for table in tables])
        assert (feature["patients"], feature["contours"]) == x.shape == (len(SITES) * PATIENTS, CONTOURS)
        f = stats.f_oneway(*x).statistic  # patients are the groups
        assert feature["icc"] == pytest.approx((f - 1) / (f + CONTOURS - 1), abs=1e-8)
        low, high = feature["ci"]
        assert low < feature["icc"] < high


def test_a_region_of_many_sizes_has_a_stable_volume_and_an_unstable_minimum(run):
    icc = {one["feature"].rpartition("/")[2]: one["icc"] for one in agreement(run[1])["features"]}
    assert icc["original_shape_VoxelVolume"] > 0.8
    assert icc["original_shape_Elongation"] < 0.75
    assert agreement(run[1])["kept"] == 1 + sum(value >= 0.75 for value in icc.values())


def test_only_stable_features_are_in_the_model(run):
    _, results, _ = run
    icc = {one["feature"]: one["icc"] for one in agreement(results)["features"]}
    chosen = [name for name in results["models"]["stable"]["selected"] if name in icc]
    assert chosen
    assert min(icc[name] for name in chosen) >= 0.75


def test_no_other_question_sees_the_contours(run):
    out, _, tables = run
    assert not any(name.startswith("perturbed.") for name in tables[0].feature_names)
    study = load_study(out)
    asked = sums_sent(out)
    assert "icc.agreement" in asked
    listed = {one.statistic: one.formula for one in releases(study)}
    assert asked.keys() <= set(listed)
    assert listed["icc.agreement"] == f"{CONTOURS + 3} f"  # a sum a contour, patients, squares, squared means


def test_a_rehearsal_at_a_site_asks_the_same(run):
    out, _, tables = run
    rehearsed = preview(load_study(out), tables[0], ("*",))
    assert not rehearsed.stopped
    assert "icc.agreement" in {one.statistic for one in rehearsed.sums}


def test_the_report_says_how_stable_the_features_were(run):
    page = (run[0] / "report.html").read_text()
    step = agreement(run[1])
    assert "ICC(1,1) of perturbed contours, 0.75 or more" in page
    assert f"ICC(1,1) of 32 features over {CONTOURS} contours a patient" in page
    assert f"median {np.median([one['icc'] for one in step['features']]):.2f}" in page
    assert f"{step['from'] - step['kept']} below 0.75 were left out" in page
