"""Model files: a folder that is damaged, of another format or made up by someone gives an error and opens no file."""

import hashlib
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from cohortium.client.predict.saved import open_model
from cohortium.common.codec import pack, unpack
from cohortium.common.errors import ModelError
from cohortium.common.model_files import FORMAT, SUMS, read_model, write_model
from cohortium.common.study import parse_study

STUDY = {
    "study": {"name": "small", "primary": "outcome", "seed": 1},
    "variable": [{"name": "age", "kind": "continuous"}],
    "endpoint": {"outcome": {"kind": "binary", "column": "outcome"}},
    "split": {"train": ["a", "b", "c"]},
    "model": {"m": {"kind": "logistic", "predictors": ["age"]}},
}
FIT = {
    "blocks": [{"terms": ["age"]}],
    "centre": np.array([60.0]),
    "scale": np.array([9.0]),
    "fill": np.array([60.0]),
    "coefficients": np.array([-0.5, 0.7]),
}


COVARIANCE = {
    "matrix": [[1.0, 0.0], [0.0, 1.0]],
    "intercept": True,
    "information": 1.0,
    "middle": [0.0],
    "degrees_of_freedom": None,
}
NOMOGRAM = {
    "axes": [{"variable": "age", "points": [[20.0, 0.0], [90.0, 100.0]]}],
    "points_per_unit": 1.0,
    "lowest": 0.0,
    "columns": ["age"],
    "slopes": [0.1],
}


def folder_of(place, *, describe=None, **fit):
    """A whole model, with parts of its fit replaced."""
    study = parse_study(STUDY)
    data = pack({"name": "m", "outcome": "binary", "replicates": {"": {**FIT, **fit}}})
    description = {
        "format": FORMAT,
        "name": "m",
        "study": {"name": "small", "hash": study.hash},
        "kind": "logistic",
        "endpoint": "outcome",
        "outcome": "binary",
        "model": hashlib.sha256(data).hexdigest(),
        "columns": ["age"],
        "terms": ["(Intercept)", "age"],
        "estimates": [0.0, 0.1],
        "cutoff": 0.5,
        "patients": 100,
        "covariance": "none here",
        "nomogram": "none here",
        "baseline": "none here",
        "training": {"m": {"columns": ["age"], "centre": [60.0], "scale": [9.0]}},
        "shares": {},
        "constant": [],
        "features": {},
        **(describe or {}),
    }
    write_model(place / "m", description, study, {description["model"]: data}, "# m\n")
    return place / "m"


def resign(folder):
    """SHA256SUMS as someone would write it who changed files on purpose."""
    files = [folder / "model.json", folder / "study.toml", *sorted((folder / "objects").iterdir())]
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(folder)}\n" for f in files]
    (folder / SUMS).write_text("".join(lines))


def test_a_whole_folder_scores_and_sha256sum_can_check_it(tmp_path):
    folder = folder_of(tmp_path)
    model = open_model(folder)
    context = model.context(["1"], {"age": np.array([69.0])})
    assert model.score(context) == np.round(1 / (1 + np.exp(-0.2)), 4)
    for line in (folder / SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("victim", ["model.json", "study.toml", "objects", SUMS])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_every_damaged_file_is_named(tmp_path, victim, harm):
    folder = folder_of(tmp_path)
    file = next((folder / victim).iterdir()) if victim == "objects" else folder / victim
    data = bytearray(file.read_bytes())
    if harm == "remove":
        file.unlink()
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data if harm == "flip" else data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"run|whole folder"):
        read_model(folder)


def test_another_format_names_both(tmp_path):
    folder = folder_of(tmp_path, describe={"format": "cohortium-model/9"})
    with pytest.raises(ModelError, match=r"format 'cohortium-model/9', this version reads 'cohortium-model/2'"):
        read_model(folder)
    (folder / SUMS).unlink()
    with pytest.raises(ModelError, match="written by a version before"):
        read_model(folder)
    with pytest.raises(ModelError, match="no such folder"):
        read_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "objects/../../secret",
        "objects/..%2fsecret.coh",
        "weights/x",
        "model.json\x00",
        "a b",
    ],
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    folder = folder_of(tmp_path)
    (tmp_path / "secret").write_text("secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    with (folder / SUMS).open("a") as stream:
        stream.write(f"{digest}  {name}\n")
    with pytest.raises(ModelError, match="names no file of a model"):
        read_model(folder)


def test_a_pickle_is_never_loaded(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    folder = folder_of(tmp_path)
    data = pickle.dumps(Harm())
    digest = hashlib.sha256(data).hexdigest()
    (folder / "objects" / f"{digest}.coh").write_bytes(data)
    resign(folder)
    with pytest.raises(ModelError, match="not a cohortium message"):
        read_model(folder)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "fit",
    [
        {"coefficients": np.zeros(3)},
        {"coefficients": "text"},
        {"blocks": [{"terms": ["height"]}]},
        {"blocks": [{"terms": ["age=2"]}]},
        {"blocks": [{"model": "0" * 64}]},
        {"blocks": [{"features": "radiomics", "at": None}]},
        {"blocks": [{"terms": ["age"], "chain": "0" * 64}]},
        {"blocks": 7},
        {"scale": None},
        {"kernel": [0.1, 10**12, 1]},
        {"head": [10**9], "weights": np.zeros(3, dtype=np.float32)},
        {
            "trees": {"feature": np.full((1, 3), 5), "threshold": np.zeros((1, 3)), "value": np.zeros((1, 3))},
            "base": 0.0,
        },
    ],
)
def test_parts_that_do_not_fit_are_no_model(tmp_path, fit):
    with pytest.raises(ModelError, match=r"do not fit together|no number"):
        open_model(folder_of(tmp_path, **fit))


@pytest.mark.parametrize(
    "describe",
    [
        {"estimates": "x"},
        {"covariance": {"matrix": [[1.0]]}},
        {"extra": 1},
        {"model": "../../etc"},
        {"columns": ["age"] * 3, "training": {}},
        {"columns": ["age"] * 3},
        {"training": {"m": {"columns": ["age"], "centre": [60.0], "scale": []}}},
        {"baseline": {"time": [1.0], "cumulative_hazard": []}},
        {"covariance": {**COVARIANCE, "middle": []}},
        {"covariance": {**COVARIANCE, "matrix": [[1.0, 0.0], [0.0]]}},
        {"nomogram": {**NOMOGRAM, "axes": [{"variable": "age"}]}},
        {"nomogram": {**NOMOGRAM, "slopes": []}},
    ],
)
def test_a_description_of_other_keys_and_sizes_is_refused(tmp_path, describe):
    with pytest.raises(ModelError, match=r"m: "):
        open_model(folder_of(tmp_path, describe=describe))


def test_the_study_must_be_that_of_the_model(tmp_path):
    folder = folder_of(tmp_path)
    text = (folder / "study.toml").read_text().replace("seed = 1", "seed = 2")
    (folder / "study.toml").write_text(text)
    resign(folder)
    with pytest.raises(ModelError, match=r"study\.toml is not the study of this model"):
        read_model(folder)


def test_random_objects_give_typed_errors_only(tmp_path):
    folder = folder_of(tmp_path)
    (file,) = (folder / "objects").iterdir()
    whole, rng = file.read_bytes(), np.random.default_rng(4)
    file.unlink()
    description = json.loads((folder / "model.json").read_text())
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        digest = hashlib.sha256(data).hexdigest()
        shutil.rmtree(folder / "objects")
        (folder / "objects").mkdir()
        (folder / "objects" / f"{digest}.coh").write_bytes(data)
        (folder / "model.json").write_text(json.dumps({**description, "model": digest}))
        resign(folder)
        try:
            model = open_model(folder)
            model.score(model.context(["1"], {"age": np.array([69.0])}))
        except ModelError:
            pass
    assert unpack(whole)["name"] == "m"
