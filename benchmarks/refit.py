"""Refit: the models of a tabular study once more, from the hospitals' raw rows on one pile, with other software.

    python benchmarks/refit.py STUDY_DIR OUT

reads STUDY_DIR/sites/*/site.toml and the tables they name, OUT/study.toml and OUT/results.json. It imports nothing of
the package: parts and folds are drawn anew by the documented rule, gaps are filled from the training patients, logistic
and Cox models are statsmodels', the LASSO path is solved by active sets. One line a figure: largest relative
difference, what is allowed, pass or fail; the exit code is 1 if one failed.
"""

import hashlib
import hmac
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.api as sm

ALLOWED = 1e-7


def keyed_hash(purpose, seed, site, patient_id):
    """First 8 bytes of HMAC-SHA256, as study files define parts and folds."""
    key = f"cohortium/1/{purpose}/{seed}".encode()
    return int.from_bytes(hmac.digest(key, f"{site}\x1f{patient_id}".encode(), hashlib.sha256)[:8], "big")


def patients_of(study, folder):
    """All sites' rows under the study's names, with site and part."""
    frames = []
    for file in sorted(folder.glob("sites/*/site.toml")):
        site = tomllib.loads(file.read_text())
        frame = pd.read_csv(file.parent / site["data"]["patients"], dtype={"patient_id": str})
        for column, value in site["data"].get("where", {}).items():
            frame = frame[frame[column] == value]
        frame = frame.rename(columns={local: name for name, local in site["data"].get("columns", {}).items()})
        name, split = site["site"]["name"], study["split"]
        if name in split.get("external", []):
            part = "external"
        elif "part_column" in split:
            known = {text: part for part, text in split["part_column"].items() if part != "column"}
            part = frame[split["part_column"]["column"]].map(known)
        else:
            hashes = [keyed_hash("part", study["study"]["seed"], name, i) / 2**64 for i in frame["patient_id"]]
            part = np.where(np.array(hashes) < split.get("internal_fraction", 0), "internal", "train")
        frames.append(frame.assign(site=name, part=part))
    return pd.concat(frames, ignore_index=True)


def design(study, model, train):
    """Terms of a model's predictors with gaps filled: a DataFrame."""
    columns = {}
    for name in model["predictors"]:
        variable = next(v for v in study["variable"] if v["name"] == name)
        values = train[name].astype(float)
        fill = {"median": values.median(), "mean": values.mean(), "mode": values.mode().iloc[0]}
        values = values.fillna(fill.get(variable["missing"], np.nan))
        if variable["kind"] == "continuous":
            columns[name] = values
        elif variable["kind"] == "binary":
            columns[name] = (values == variable["levels"][1]).astype(float)
        else:
            for level in variable["levels"][1:]:
                columns[f"{name}={level}"] = (values == level).astype(float)
    return pd.DataFrame(columns)


def logistic(x, y):
    """Estimates and standard errors, intercept first."""
    x = sm.add_constant(x.to_numpy())
    fit = sm.GLM(y, x, family=sm.families.Binomial()).fit(tol=1e-15, maxiter=50)
    p = fit.fittedvalues
    return fit.params, np.sqrt(np.diag(np.linalg.inv(x.T @ (x * (p * (1 - p))[:, None]))))


def cox(x, time, event, ties, strata):
    """Estimates and standard errors; fitted on standardised columns and scaled back."""
    scale = x.std().to_numpy()
    model = sm.PHReg(time, ((x - x.mean()) / scale).to_numpy(), status=event, ties=ties, strata=strata)
    fit = model.fit(method="newton", tol=1e-14, maxiter=100)
    return fit.params / scale, fit.bse / scale


def lasso(x, y, penalty, start):
    """Minimum of mean logistic loss + penalty * sum |b|, intercept first: Newton steps on the active set."""
    x = np.column_stack([np.ones(len(y)), x])
    b, sign = start.copy(), np.sign(start)
    sign[0] = 0
    for _ in range(200):
        active = np.concatenate([[0], 1 + np.flatnonzero(sign[1:])])
        for _ in range(50):
            p = 1 / (1 + np.exp(-x @ b))
            gradient = x.T @ (p - y) / len(y)
            residual = gradient[active] + penalty * sign[active]
            hessian = x[:, active].T @ (x[:, active] * (p * (1 - p))[:, None]) / len(y)
            b[active] -= np.linalg.solve(hessian, residual)
            if np.abs(residual).max() < 1e-14:
                break
        flipped = active[1:][np.sign(b[active[1:]]) != sign[active[1:]]]
        if len(flipped):
            sign[flipped] = b[flipped] = 0
            continue
        excess = np.where(sign == 0, np.abs(gradient), 0)
        excess[0] = 0
        worst = int(np.argmax(excess))
        if excess[worst] <= penalty * (1 + 1e-12):
            return b
        sign[worst] = -np.sign(gradient[worst])
    raise RuntimeError(f"no active set at penalty {penalty}")


def lasso_path(x, y, penalties):
    """Coefficients (penalties, p + 1), largest penalty first."""
    b, path = np.zeros(x.shape[1] + 1), []
    b[0] = np.log(y.mean() / (1 - y.mean()))
    for penalty in penalties:
        b = lasso(x, y, penalty, b)
        path.append(b)
    return np.array(path)


def inner_folds(study, train, y, folds):
    """Fold of each training patient: within site and class by keyed hash, starting at the site's place."""
    fold, sites = np.empty(len(train), int), sorted(study["split"]["train"])
    for (site, _), rows in train.reset_index(drop=True).groupby(["site", y]):
        rank = [keyed_hash("fold/inner", study["study"]["seed"], site, i) for i in rows["patient_id"]]
        fold[rows.index[np.argsort(rank)]] = (np.arange(len(rows)) + sites.index(site)) % folds
    return fold


def chosen_by_lasso(study, train, x, y, step):
    """Which columns the cross-validated LASSO keeps, its penalty and its cross-validated deviance."""
    z = ((x - x.mean()) / x.std()).to_numpy()
    largest = np.abs(z.T @ (y - y.mean())).max() / len(y)
    penalties = np.geomspace(largest, 1e-3 * largest, step["n_lambda"])
    fold, deviance = inner_folds(study, train, y, step["folds"]), np.zeros(len(penalties))
    for k in range(step["folds"]):
        out = fold == k
        for i, b in enumerate(lasso_path(z[~out], y[~out], penalties)):
            linear = b[0] + z[out] @ b[1:]
            deviance[i] += 2 * (np.logaddexp(0, linear) - y[out] * linear).sum() / len(y)
    best = int(np.argmin(deviance))
    kept = lasso_path(z, y, penalties[: best + 1])[-1][1:] != 0
    whole = {name.partition("=")[0] for name in x.columns[kept]}
    return [name for name in x.columns if name.partition("=")[0] in whole], penalties[best], deviance


def check(folder, out):
    """Every logistic and Cox model of the study; returns whether all passed."""
    study, results = tomllib.loads((out / "study.toml").read_text()), json.loads((out / "results.json").read_text())
    pile = patients_of(study, folder)
    train, passed = pile[pile["part"] == "train"], True

    def line(figure, difference, allowed=ALLOWED):
        nonlocal passed
        passed &= bool(difference <= allowed)
        print(f"{figure:44} {difference:10.2e} {allowed:9.1e}  {'pass' if difference <= allowed else 'FAIL'}")

    print(
        f"\n{study['study']['name']}: {len(train)} training patients\n{'figure':44} {'difference':>10} {'allowed':>9}"
    )
    for name, model in study["model"].items():
        published = results["models"][name]
        endpoint, x = study["endpoint"][model.get("endpoint") or study["study"]["primary"]], design(study, model, train)
        if model["kind"] == "logistic":
            y = (train[endpoint["column"]] == endpoint["positive"]).to_numpy(float)
            for step in model.get("selection", []):
                kept, penalty, deviance = chosen_by_lasso(study, train, x, y, step)
                line(f"{name}: columns kept by LASSO", len(set(kept) ^ set(published["selected"])), 0)
                line(f"{name}: penalty", abs(published["notes"]["lambda"] / penalty - 1))
                ours = np.array(published["notes"]["path"]["cv_deviance"])
                line(f"{name}: cross-validated deviance", np.abs(ours / deviance[: len(ours)] - 1).max())
                x = x[kept]
            estimates, errors = logistic(x, y)
        elif model["kind"] == "cox":
            strata = train["site"].to_numpy() if model["strata"] == "site" else None
            time, event = train[endpoint["time"]].to_numpy(float), train[endpoint["event"]].to_numpy(float)
            estimates, errors = cox(x, time, event, model["ties"], strata)
        else:
            continue
        terms = published["coefficients"]
        for label, key, reference in (("estimates", "estimate", estimates), ("standard errors", "se", errors)):
            ours = np.array([term[key] for term in terms])
            line(f"{name}: {len(ours)} {label}", np.abs(ours / reference - 1).max())
    return passed


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(not check(Path(sys.argv[1]), Path(sys.argv[2])))
