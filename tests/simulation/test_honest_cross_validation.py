"""Cross-validation is honest: noise has no signal, though hundreds of features are screened, selected and trained on.

Harmonisation, screening, correlation pruning, LASSO, the network's training and stacking happen inside each fold. Were
any of them done once on all patients, 300 noise features would reach a cross-validated AUC far above .5.
"""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from cohortium.common.table import Table
from tests.simulation.prepared import run_on_tables

STUDY = """
[study]
name = "noise"
primary = "outcome"
seed = 3

[endpoint.outcome]
kind = "binary"
column = "outcome"

[image.ct]
modality = "CT"
spacing_mm = [1.0, 1.0, 1.0]

[region.tumour]
source = "mask"

[features.radiomics]
kind = "radiomics"
images = ["ct"]
regions = ["tumour"]
bin_count = 32

[features.deep]
kind = "deep"
images = ["ct"]
regions = ["tumour"]
network = "resnet10"
size = [64, 64]
slices = "largest"
weights = "random"

[harmonise]
method = "combat"
features = ["radiomics"]

[split]
train = ["north", "east", "south"]
folds = 4

[model.signature]
kind = "lasso"
predictors = ["features.radiomics"]
folds = 4
n_lambda = 12
selection = [{ method = "screen", test = "t", p = 0.1 }, { method = "correlation", r = 0.9, keep = "largest_t" }]

[model.network]
kind = "network"
predictors = ["features.deep"]
head = [8]
rounds = 3
learning_rate = 1e-2

[model.fused]
kind = "logistic"
predictors = ["model.signature", "model.network"]

[validation]
compare = [["fused", "signature"]]
"""
SIZES = {"north": 60, "east": 50, "south": 40}


def noise_table(site: str, n: int) -> Table:
    rng = np.random.default_rng([17, n])
    features = {f"features.radiomics/ct/tumour/f{i:03d}": rng.standard_normal(n) + n / 50 for i in range(300)}
    features |= {f"features.deep/ct/tumour/{i:04d}": rng.standard_normal(n) for i in range(40)}
    return Table(
        site=site,
        patient_id=np.array([f"{site}-{i:03d}" for i in range(n)]),
        part=np.full(n, "train"),
        columns={"endpoint.outcome": (rng.random(n) < 0.45).astype(float), **features},
    )


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A finished run on noise: its results and the pooled rows."""
    place = tmp_path_factory.mktemp("noise")
    tables = {site: noise_table(site, n) for site, n in SIZES.items()}
    return run_on_tables(place, STUDY, tables), tables, place


def test_no_model_finds_signal_in_noise(noise):
    results, _, _ = noise
    for name, model in results["models"].items():
        figures = model["cohorts"]["cross_validated"]
        events, others = figures["events"], figures["n"] - figures["events"]
        # standard error of the Mann-Whitney statistic where there is no signal
        null_se = np.sqrt((events + others + 1) / (12 * events * others))
        assert abs(figures["auc"]["estimate"] - 0.5) < 3 * null_se, name


def test_selection_on_all_patients_would_have_shown(noise):
    """The test above can fail: the same noise, screened once on everybody, seems to predict."""
    _, tables, _ = noise
    x = np.vstack([table.matrix(list(table.feature_names)[:300]) for table in tables.values()])
    x = x - np.concatenate([np.full((n, 1), n / 50) for n in SIZES.values()])
    y = np.concatenate([table.columns["endpoint.outcome"] for table in tables.values()])
    strength = np.abs(x[y == 1].mean(0) - x[y == 0].mean(0)) / x.std(0)
    best = np.argsort(-strength)[:20]
    scores = cross_val_predict(LogisticRegression(), x[:, best], y, cv=4, method="predict_proba")[:, 1]
    assert roc_auc_score(y, scores) > 0.7


def test_predictions_hold_the_fold_and_both_scores(noise):
    _, _, place = noise
    header = (Path(place) / "sites" / "north" / "predictions.csv").read_text().splitlines()[0].split(",")
    assert header[:4] == ["patient_id", "part", "fold", "outcome"]
    assert {"score.fused", "fit.fused", "score.network", "fit.signature"} <= set(header)
