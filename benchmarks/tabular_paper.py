"""Tabular paper: one paper's whole analysis over four hospitals of 500 patients, with its cost.

    python benchmarks/tabular_paper.py [--patients 500] [--features 1500] [--out DIR]

Table 1, screening of all features by t-test, pruning of correlated ones, LASSO with 10-fold cross-validation, logistic
and Cox models, an internal and an external cohort: AUC with DeLong's tests of three models, calibration, decision
curves, Kaplan-Meier curves and concordance. Prints secure sums, messages, bytes and seconds of the run in this process;
the aim is 80 sums and 60 s on two cores. Patients are drawn here: a few features carry the outcome, in blocks that are
correlated, and hospitals differ in level.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cohortium.simulation.simulate import simulate

SITES = ("north", "east", "south", "west", "abroad")
CLINICAL = ("age", "stage", "marker")
MOST_SUMS, MOST_SECONDS = 80, 60.0

STUDY = """
[study]
name = "tabular_paper"
title = "A prediction model of many measured features"
primary = "response"
seed = 11

[endpoint.response]
kind = "binary"
column = "response"
positive = 1

[endpoint.survival]
kind = "survival"
time = "months"
event = "died"
unit = "months"
horizon = [24]

[split]
train = ["north", "east", "south", "west"]
external = ["abroad"]
internal_fraction = 0.3

[model.clinical]
kind = "logistic"
predictors = ["age", "stage", "marker"]

[model.signature]
kind = "lasso"
predictors = [{features}]
selection = [{{method = "screen", p = 0.05}}, {{method = "correlation", r = 0.9}}]

[model.combined]
kind = "logistic"
predictors = ["model.clinical", "model.signature"]
stack = "apparent"

[model.prognosis]
kind = "cox"
endpoint = "survival"
predictors = ["age", "stage", "marker"]

[validation]
compare = [["combined", "clinical"], ["combined", "signature"], ["clinical", "signature"]]
survival = "survival"
"""


def write_study(folder: Path, patients: int, features: int) -> None:
    """study.toml, and a table and a site.toml for each hospital."""
    names = [f"f{i:04d}" for i in range(features)]
    variables = [f'[[variable]]\nname = "{name}"\nkind = "continuous"\n' for name in ("age", "marker", *names)]
    variables.append('[[variable]]\nname = "stage"\nkind = "categorical"\nlevels = ["I", "II", "III"]\n')
    study = STUDY.format(features=", ".join(f'"{name}"' for name in names))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(study + "\n".join(variables))
    for number, site in enumerate(SITES):
        frame = drawn(np.random.default_rng([11, number]), patients, names, shift=0.3 * number)
        place = folder / "sites" / site
        place.mkdir(parents=True, exist_ok=True)
        frame.to_csv(place / "patients.csv", index=False, float_format="%.6g")
        (place / "site.toml").write_text(f'[site]\nname = "{site}"\n\n[data]\npatients = "patients.csv"\n')


def drawn(rng: np.random.Generator, patients: int, names: list[str], shift: float) -> pd.DataFrame:
    """Patients of one hospital; every ten features share a factor, the first five factors carry the outcome."""
    factors = rng.standard_normal((patients, len(names) // 10 + 1)) + shift
    x = factors[:, np.arange(len(names)) // 10] + 0.5 * rng.standard_normal((patients, len(names)))
    age, marker = rng.normal(60, 10, patients), rng.lognormal(1, 0.6, patients)
    stage = rng.integers(0, 3, patients)
    risk = (factors[:, :5] - shift).sum(1) * 0.5 + 0.04 * (age - 60) + 0.4 * (stage - 1) + 0.1 * (marker - 3)
    response = rng.random(patients) < 1 / (1 + np.exp(-(risk - 0.5)))
    months = rng.exponential(40 * np.exp(-0.5 * risk))
    censored = rng.uniform(12, 72, patients)
    return pd.DataFrame(x, columns=names).assign(
        patient_id=[f"p{i:04d}" for i in range(patients)], age=age.round(), marker=marker,
        stage=np.array(["I", "II", "III"])[stage], response=response.astype(int),
        months=np.minimum(months, censored), died=(months <= censored).astype(int),
    )  # fmt: skip


def main() -> None:
    """Write the study, run it, print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--features", type=int, default=1500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch) / "tabular_paper", options.out or Path(scratch) / "out"
        write_study(folder, options.patients, options.features)
        start = time.perf_counter()
        simulate(folder, out)
        seconds = time.perf_counter() - start
        results = json.loads((out / "results.json").read_text())
    cost = results["cost"]
    up = max(cost["bytes_up_by_site"].values())
    print(f"{len(SITES)} hospitals of {options.patients} patients, {options.features} features")
    print(f"secure sums {cost['secure_sums']} (aim {MOST_SUMS}), messages {cost['messages']}, bytes up a site {up:,}")
    print(f"seconds {seconds:.1f} from raw tables to report (aim {MOST_SECONDS:.0f}), federation {cost['seconds']:.1f}")


if __name__ == "__main__":
    main()
