"""Odd studies: whole runs on data that a fit, a figure or a report could stumble over."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from cohortium.common.errors import NotIdentifiable
from cohortium.simulation.simulate import simulate

SIZES = {"north": 60, "east": 50, "south": 45, "west": 12}
FULL = """
internal_fraction = 0.3
[model.full]
kind = "logistic"
predictors = ["age", "stage", "marker"]
"""
NETWORK = """
internal_fraction = 0.3
[model.head]
kind = "network"
rounds = 2
predictors = ["age"]
"""
COX = """
internal_fraction = 0.3
[model.hazard]
kind = "cox"
endpoint = "os"
predictors = ["age"]
"""


@pytest.fixture
def odd(write_study, tmp_path):
    """``odd(tables, edit)`` runs a study on edited patients; results.json must be strict JSON and the report exist."""

    def run(tables, edit=lambda _site, frame: frame, *, sizes=SIZES, header=lambda text: text, **options):
        folder = write_study(tmp_path / "study", tables, sizes=sizes)
        (folder / "study.toml").write_text(header((folder / "study.toml").read_text()))
        for path in sorted(folder.glob("sites/*/patients.csv")):
            edit(path.parent.name, pd.read_csv(path)).to_csv(path, index=False)
        simulate(folder, tmp_path / "out", **options)
        assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
        return json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)

    return run


def test_a_site_of_one_patient_and_one_of_one_class_take_part(odd):
    def edit(site, frame):
        return frame.iloc[:1] if site == "south" else frame.assign(outcome=0) if site in ("east", "west") else frame

    results = odd(FULL, edit)
    assert {site["name"]: site["used"] for site in results["sites"]} == {
        "east": 50,
        "north": 60,
        "south": 1,
        "west": 12,
    }
    figures = results["models"]["full"]["cohorts"]
    assert figures["train"]["n"] + figures["internal"]["n"] == 111
    assert "at least one patient with and one" in figures["external"]["auc"]["undefined"]


@pytest.mark.parametrize(
    ("tables", "edit", "told"),
    [
        (FULL, {"outcome": 1}, r"\[model.full\]: logistic regression: all \d+ patients have the outcome"),
        (FULL, {"outcome": lambda f: (f.age > 60).astype(int)}, r"\[model.full\]: age separates the outcome"),
        (FULL, {"marker": lambda f: 2 * f.age}, r"\[model.full\]: age and marker determine each other"),
        (NETWORK, {"age": 60}, r"\[model.head\]: no predictor is left for a network model"),
        (COX, {"age": 60}, r"\[model.hazard\]: no predictor is left for a cox model"),
        (COX, {"death": 0}, r"\[model.hazard\]: no patient had the event"),
    ],
)
def test_a_model_that_the_data_cannot_determine_is_named(odd, tables, edit, told):
    with pytest.raises(NotIdentifiable, match=told):
        odd(tables, lambda _, frame: frame.assign(**edit))


def test_a_constant_predictor_is_left_out_and_said_so(odd):
    """Also an intercept of its own: every score alike."""
    tables = (
        FULL + '[model.alone]\nkind = "logistic"\npredictors = ["age"]\n[validation]\ncompare = [["full", "alone"]]\n'
    )
    models = odd(tables, lambda _, frame: frame.assign(age=60))["models"]
    assert models["full"]["notes"]["left_out"] == ["age"]
    assert [row["term"] for row in models["alone"]["coefficients"]] == ["(Intercept)"]
    assert models["alone"]["cohorts"]["train"]["auc"]["estimate"] == 0.5
    assert "undefined" in models["alone"]["cohorts"]["train"]["calibration"]["slope"]


def test_a_selection_that_keeps_nothing_does_not_stop_the_study(odd):
    """Times that no variable knows of: every patient has the same hazard."""
    cox = COX.replace('["age"]', '["age", "marker"]\nselection = [{ method = "lasso", lambda = "1se", n_lambda = 5 }]')

    def at_random(site, frame):
        rng = np.random.default_rng(len(site))
        return frame.assign(time=rng.integers(1, 900, len(frame)), death=rng.integers(0, 2, len(frame)))

    model = odd(cox, at_random)["models"]["hazard"]
    assert model["selected"] == []
    assert model["coefficients"] == []
    assert model["cohorts"]["internal"]["survival"]["c_index"]["estimate"] == 0.5


def test_a_unit_so_large_that_no_number_holds_the_ratio(odd):
    results = odd(FULL, lambda _, frame: frame.assign(age=frame.age * 1e-15))
    row = results["models"]["full"]["coefficients"][1]
    assert row["term"] == "age"
    assert 0.01 < row["estimate"] * 1e-15 < 0.2  # .06 a year in the generator
    assert math.isfinite(row["ci"][0])
    assert "another unit" in row["ratio"]["undefined"]
    assert "another unit" in row["ratio_ci"]["undefined"]


def test_a_variable_that_one_site_or_no_site_has(odd):
    def nowhere(site, frame):
        return frame.assign(marker=np.nan, stage=np.nan if site == "north" else frame.stage)

    def header(text):
        return text.replace("levels = [1, 2, 3]", 'levels = [1, 2, 3]\nmissing = "mode"')

    model = odd(FULL, nowhere, header=header)["models"]["full"]
    assert model["notes"]["left_out"] == ["marker"]
    assert [row["term"] for row in model["coefficients"]] == ["(Intercept)", "age", "stage=2", "stage=3"]


def test_two_survival_endpoints_in_units_of_their_own(odd, tmp_path):
    """The same follow-up in days and in years gives the same figures, each at its own horizons."""

    def header(text):
        years = (
            '[endpoint.years]\nkind = "survival"\ntime = "time_y"\nevent = "death"\nunit = "years"\nhorizon = [1, 2]\n'
        )
        return text.replace("horizon = 365", "horizon = [365.25, 730.5]") + years

    tables = (
        'internal_fraction = 0.3\n[model.days]\nkind = "cox"\nendpoint = "os"\nstrata = "none"\npredictors = ["age"]\n'
        '[model.years]\nkind = "cox"\nendpoint = "years"\nstrata = "none"\npredictors = ["age"]\n'
        '[[validation.analysis]]\nmodel = "days"\nendpoint = "years"\n'
    )
    sizes = SIZES | {"west": 40}
    models = odd(tables, lambda _, frame: frame.assign(time_y=frame.time / 365.25), header=header, sizes=sizes)[
        "models"
    ]
    days, years = (models[name]["cohorts"]["internal"]["survival"] for name in ("days", "years"))
    assert list(days["auc_at"]) == ["365.25", "730.5"]
    assert list(years["auc_at"]) == ["1", "2"]
    for figure in ("auc_at", "brier_at"):
        for one, other in zip(days[figure].values(), years[figure].values(), strict=True):
            assert one == pytest.approx(other, rel=1e-6)
    analysis = models["days"]["cohorts"]["internal/analysis:days->years"]["survival"]
    assert analysis["c_index"]["estimate"] == pytest.approx(years["c_index"]["estimate"], rel=1e-9)
    assert all("undefined" in figure for figure in analysis["brier_at"].values())
