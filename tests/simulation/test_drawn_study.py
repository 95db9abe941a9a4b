"""A whole study whose region a network draws: no site brings a contour, and a new patient's score needs none."""

import hashlib
import json
import shutil
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import tomli_w

from cohortium.cli.main import main
from cohortium.common.errors import SiteError
from cohortium.simulation.simulate import simulate
from tests.client.imaging.segmenters import thresholding
from tests.client.imaging.volumes import ball, make

SITES = ("north", "east", "south")
EACH = 20
SHAPE = (12, 16, 16)
SITE = """
[site]
name = "{site}"
[data]
patients = "patients.csv"
[images.ct]
image = "{{patient_id}}.nrrd"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Balls of random sizes in noise, of which larger ones relapse more often; simulated."""
    place = tmp_path_factory.mktemp("drawn")
    folder, rng = place / "study", np.random.default_rng(0)
    for site in SITES:
        (folder / "sites" / site).mkdir(parents=True)
        rows = []
        for i in range(EACH):
            radius_mm = rng.uniform(4, 9)
            values = rng.normal(0, 15, SHAPE)
            values[ball(SHAPE, radius_mm, (1.0, 1.5, 2.0))] += rng.uniform(120, 250)
            sitk.WriteImage(sitk.Cast(make(values), sitk.sitkFloat32), folder / "sites" / site / f"{site}{i}.nrrd")
            rows.append((f"{site}{i}", int(rng.random() < 1 / (1 + np.exp(6.5 - radius_mm)))))
        pd.DataFrame(rows, columns=["patient_id", "relapse"]).to_csv(
            folder / "sites" / site / "patients.csv", index=False
        )
        (folder / "sites" / site / "site.toml").write_text(SITE.format(site=site))
    region = thresholding(folder / "net.pt", 60.0, spacing_mm=(1.2, 1.5, 1.8), patch=(16, 16, 16))
    study = {
        "study": {"name": "drawn", "primary": "relapse", "seed": 3},
        "endpoint": {"relapse": {"kind": "binary", "column": "relapse"}},
        "image": {"ct": {"modality": "CT", "spacing_mm": [1.5, 1.5, 1.5]}},
        "region": {"tumour": region},
        "features": {
            "shape": {
                "kind": "radiomics", "images": ["ct"], "regions": ["tumour"], "classes": ["shape"], "bin_count": 8
            }
        },
        "split": {"train": list(SITES)},
        "model": {
            "m": {"kind": "lasso", "lambda": "min", "folds": 3, "n_lambda": 10, "predictors": ["features.shape"]}
        },
    }  # fmt: skip
    (folder / "study.toml").write_text(tomli_w.dumps(study))
    simulate(folder, place / "out")
    return folder, place / "out"


def test_what_a_site_file_lacks_is_told_before_any_site_prepares(finished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(finished[0], folder)
    last = folder / "sites" / SITES[-1] / "site.toml"
    last.write_text(last.read_text().replace("[images.ct]", "[images.mr]"))
    with pytest.raises(SiteError, match=r"\[images\.ct\] is missing"):
        simulate(folder, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("table.parquet"))


def test_the_model_finds_the_size(finished):
    results = json.loads((finished[1] / "results.json").read_text())
    assert results["models"]["m"]["cohorts"]["train"]["auc"]["estimate"] > 0.7


def test_scores_without_a_mask_are_those_of_predictions_csv(finished, tmp_path):
    folder, out = finished
    wanted = pd.concat([pd.read_csv(out / "sites" / site / "predictions.csv") for site in SITES], ignore_index=True)
    assert len(wanted) == len(SITES) * EACH
    some = wanted.iloc[::7]
    images = [f"{next(folder.rglob(f'{patient}.nrrd'))}" for patient in some.patient_id]
    pd.DataFrame({"patient_id": some.patient_id, "image.ct": images}).to_csv(tmp_path / "new.csv", index=False)
    words = ["--patients", str(tmp_path / "new.csv"), "--out", str(tmp_path / "risk.csv")]
    assert main(["predict", str(out / "models" / "m"), *words]) == 0
    found = pd.read_csv(tmp_path / "risk.csv")
    assert found.patient_id.tolist() == some.patient_id.tolist()
    assert set(found.filled) == {"mask of tumour on ct was missing, drawn by the study's network"}
    assert found.risk.tolist() == some["score.m"].tolist()


def with_libraries(model, target, versions):
    """The model's folder as it would be had it been made with other versions, or by a run that recorded none."""
    shutil.copytree(model, target)
    description = json.loads((target / "model.json").read_text())
    was = description.pop("libraries")
    if versions:
        description["libraries"] = {**was, **versions}
    (target / "model.json").write_text(json.dumps(description))
    lines = (target / "SHA256SUMS").read_text().splitlines()
    digest = hashlib.sha256((target / "model.json").read_bytes()).hexdigest()
    (target / "SHA256SUMS").write_text(
        "".join(f"{digest}  model.json\n" if line.endswith("  model.json") else f"{line}\n" for line in lines)
    )
    return target, was


def test_other_versions_of_what_measures_images_are_told(finished, tmp_path, capsys):
    folder, out = finished
    image = next(iter(sorted(folder.rglob("*.nrrd"))))
    here, was = with_libraries(out / "models" / "m", tmp_path / "here", {})
    assert was == {name: version(name) for name in ("PyWavelets", "SimpleITK", "pyradiomics")}
    there, _ = with_libraries(out / "models" / "m", tmp_path / "there", {"pyradiomics": "3.0.0"})
    for model in (here, out / "models" / "m"):
        assert main(["predict", str(model), "--image", f"ct={image}"]) == 0
        assert "measured with" not in capsys.readouterr().err
    assert main(["predict", str(there), "--image", f"ct={image}"]) == 0
    told = f"its images were measured with pyradiomics {version('pyradiomics')}; the model was made with 3.0.0"
    assert told in capsys.readouterr().err
