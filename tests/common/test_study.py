"""The study file: what it means, what it hashes to, and that its schema is the published contract."""

import json
import os
import tomllib
from pathlib import Path

import jsonschema
import pytest

from cohortium.common.errors import StudyError
from cohortium.common.study import load_study, parse_study, study_schema
from cohortium.sites.site_file import site_schema

STUDIES = Path(__file__).parents[1] / "data" / "studies"
NAMES = ("uci_heart", "tcga_brca", "sarcoma")


def tables(name: str = "uci_heart") -> dict:
    return tomllib.loads((STUDIES / name / "study.toml").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_fit_the_published_schema(name):
    schema = study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tables(name), schema)
    assert load_study(STUDIES / name) == load_study(STUDIES / name / "study.toml")


@pytest.mark.parametrize("name", NAMES)
def test_the_study_as_run_and_the_approved_copy_have_the_same_hash(name):
    study = load_study(STUDIES / name)
    assert parse_study(tomllib.loads(study.to_toml())).hash == study.hash
    assert parse_study(json.loads(study.canonical)).hash == study.hash


def test_the_hash_knows_the_content_only(tmp_path):
    study = load_study(STUDIES / "uci_heart")
    written_otherwise = tables()
    written_otherwise["variable"][0]["range"] = [18.0, 110.0]
    written_otherwise["variable"][1]["levels"] = [0.0, 1]
    written_otherwise["privacy"]["event_time_days"] = 30  # the default
    written_otherwise = dict(reversed(written_otherwise.items()))
    assert parse_study(written_otherwise, folder=tmp_path).hash == study.hash
    assert study.with_overrides(seed=8).hash != study.hash
    assert study.with_overrides(seed=8).with_overrides(seed=7).hash == study.hash


def test_weights_resolve_from_the_study_but_are_hashed_as_written(tmp_path):
    given = tables("sarcoma")
    given["features"]["deep"]["weights"] = {"file": "w.pt", "sha256": "0" * 64}
    here, there = (parse_study(given, folder=tmp_path / name) for name in ("a", "b"))
    assert here.hash == there.hash
    assert here.resolve(here.features["deep"].weights.file) == tmp_path / "a" / "w.pt"


def test_defaults_that_depend_on_other_tables():
    heart, breast = load_study(STUDIES / "uci_heart"), load_study(STUDIES / "tcga_brca")
    assert {model.endpoint for model in heart.model.values()} == {"disease"}
    assert heart.variables["sex"].levels == (0, 1)
    without_cutoff = tables("tcga_brca")
    del without_cutoff["validation"]
    assert parse_study(without_cutoff).validation.cutoff == "median"
    assert (heart.outcome_kind, breast.outcome_kind) == ("binary", "survival")
    assert breast.opt_ins == ("event_time_days",)
    assert heart.opt_ins == ()


def test_terms_leave_out_the_reference_level():
    study = load_study(STUDIES / "uci_heart")
    assert study.terms("age") == ("age",)
    assert study.terms("sex") == ("sex",)
    assert study.terms("chest_pain") == ("chest_pain=2", "chest_pain=3", "chest_pain=4")
    named = tables()
    named["variable"][1]["levels"] = ["female", "male"]
    assert parse_study(named).terms("sex") == ("sex=male",)


def test_models_come_after_the_models_they_use():
    given = tables("sarcoma")
    given["model"] = dict(reversed(given["model"].items()))
    order = parse_study(given).model_order
    assert set(order[:2]) == {"radiomics_score", "deep_signature"}
    assert order[2] == "fused"


def test_selection_and_horizon_take_short_forms():
    study = load_study(STUDIES / "uci_heart")
    (lasso,) = study.model["selected"].selection
    assert (lasso.method, lasso.lambda_, lasso.folds, lasso.n_lambda) == ("lasso", "min", 10, 50)
    one = tables("tcga_brca")
    one["endpoint"]["survival"]["horizon"] = 1825
    assert parse_study(one).endpoint["survival"].horizon == (1825.0,)


def test_train_alone_is_a_study():
    given = tables()
    del given["split"]["internal_fraction"], given["split"]["external"]
    assert parse_study(given).parts_of("va") == ("train",)


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "study.toml"
    with pytest.raises(StudyError, match="there is no file"):
        load_study(path)
    path.write_text("[study\n")
    with pytest.raises(StudyError, match=r"is not TOML: .*line 1.*correct that line"):
        load_study(path)
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(StudyError, match="save it as UTF-8"):
        load_study(path)
    path.write_text("x = " + "[" * 100_000)
    with pytest.raises(StudyError, match="simplify it"):
        load_study(path)
    if os.geteuid():  # the administrator may read everything
        path.chmod(0)
        with pytest.raises(StudyError, match="check its permissions"):
            load_study(path)


@pytest.mark.parametrize(("schema", "page"), [(study_schema, "study-file.md"), (site_schema, "site-file.md")])
def test_every_key_is_documented(schema, page):
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    published = schema()
    keys = {key for table in published["$defs"].values() for key in table.get("properties", {})} - {"method"}
    assert sorted(key for key in keys if f"`{key}`" not in text) == []
