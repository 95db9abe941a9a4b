"""Order: neither that of patients, nor that of sites, nor their names change a result; a second run is the same."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cohortium.simulation.simulate import simulate

STUDY = """
internal_fraction = 0.3
folds = 3

[model.full]
kind = "logistic"
predictors = ["age", "stage", "marker"]

[model.chosen]
kind = "lasso"
predictors = ["age", "stage", "marker"]
n_lambda = 10
folds = 3

[model.trees]
kind = "gradient_boosting"
predictors = ["age", "stage", "marker"]
trees = 3
max_depth = 2

[model.curved]
kind = "rff_svm"
predictors = ["age", "stage", "marker"]
components = 10

[model.hazard]
kind = "cox"
endpoint = "os"
predictors = ["age", "stage", "marker"]

[validation]
survival = "os"
compare = [["full", "chosen"]]

[privacy]
score_resolution = "exact"
event_time_days = 30
"""
NO_FOLDS = (
    "\n".join(
        line for line in STUDY.split("[model.chosen]")[0].splitlines() if not line.startswith(("internal", "folds"))
    )
    + "\n[model.hazard]"
    + STUDY.split("[model.hazard]")[1].replace('["full", "chosen"]', "")
)
NAMES = {"north": "zeal", "east": "alba", "south": "mull", "west": "iona"}
WITHIN = 1e-12
ANOTHER = ("study", "roster_hash", "features", "engine", "cost")
"""What differs between two studies: hashes of their files and keys, and what they cost."""


def numbers(value, at=""):
    """Every number and text of nested results by its path; sites in the order of their names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{at}/{key}")
    elif isinstance(value, list):
        if value and (isinstance(value[0], str) or at == "/sites"):
            value = sorted(value, key=lambda inner: inner if isinstance(inner, str) else inner["name"])
        for place, inner in enumerate(value):
            yield from numbers(inner, f"{at}/{place}")
    else:
        yield at, value


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def alike(one: dict, other: dict, within: float = WITHIN) -> None:
    """The same to 1e-12, relatively above 1."""
    a, b = (dict(numbers({key: value for key, value in of.items() if key not in ANOTHER})) for of in (one, other))
    assert a.keys() == b.keys()
    assert len(a) > 300
    for at, value in a.items():
        if isinstance(value, float) and isinstance(b[at], float | int):
            assert abs(value - b[at]) <= within * max(1.0, abs(value)), (at, value, b[at])
        else:
            assert value == b[at], at


@pytest.fixture(scope="module")
def finished(write_study, tmp_path_factory):
    place = tmp_path_factory.mktemp("order")
    simulate(write_study(place / "study", STUDY), place / "out")
    return place


def test_a_second_run_is_the_same_to_the_byte(finished, tmp_path):
    simulate(finished / "study", tmp_path / "again")
    one, other = results(finished / "out"), results(tmp_path / "again")
    for content in (one, other):
        assert content.pop("cost")["secure_sums"] > 0
    assert json.dumps(one) == json.dumps(other)
    for file in ("coefficients.json", "model.json"):
        for model in (finished / "out").rglob(file):
            assert model.read_bytes() == (tmp_path / "again" / model.relative_to(finished / "out")).read_bytes()


def test_the_order_of_patients_and_of_sites_changes_nothing(finished, write_study, tmp_path):
    folder = write_study(tmp_path / "study", STUDY)
    rng = np.random.default_rng(6)
    for file in folder.glob("sites/*/patients.csv"):
        frame = pd.read_csv(file)
        frame.iloc[rng.permutation(len(frame))].to_csv(file, index=False)
    study = folder / "study.toml"
    text = study.read_text()
    assert '["north", "east", "south"]' in text
    study.write_text(text.replace('["north", "east", "south"]', '["south", "north", "east"]'))
    simulate(folder, tmp_path / "out")
    alike(results(finished / "out"), results(tmp_path / "out"), within=0)


def test_the_names_of_the_sites_change_nothing_that_does_not_follow_from_them(write_study, tmp_path):
    """Parts and folds are drawn by site and patient; a study with neither gives the same under other names."""
    write_study(tmp_path / "one", NO_FOLDS)
    renamed = write_study(tmp_path / "other", NO_FOLDS)
    text = (renamed / "study.toml").read_text()
    for old, new in NAMES.items():
        text = text.replace(f'"{old}"', f'"{new}"')
        site = renamed / "sites" / old / "site.toml"
        site.write_text(site.read_text().replace(old, new))
        (renamed / "sites" / old).rename(renamed / "sites" / new)
    (renamed / "study.toml").write_text(text)
    for name in ("one", "other"):
        simulate(tmp_path / name, tmp_path / f"{name}-out")
    theirs = json.dumps(results(tmp_path / "other-out"))
    for old, new in NAMES.items():
        theirs = theirs.replace(new, old)
    alike(results(tmp_path / "one-out"), json.loads(theirs))
