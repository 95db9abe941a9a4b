"""References of models fitted again: statsmodels fits on folds of the published hash, scikit-learn; nothing of ours."""

import hashlib
import hmac

import data
import numpy as np
import statsmodels.api as sm
from scipy import special, stats
from sklearn.metrics import brier_score_loss, roc_auc_score

FOUR = ["x01", "x04", "x08", "x09"]
SEED, FOLDS, REPEATS = 17, 3, 2
MAIN = ("auc", "brier", "calibration.intercept", "calibration.slope")
THREE = ["x01", "x04", "x08"]
CENTRE, SCALE = np.array([19.0, 0.1, 0.18]), np.array([4.5, 0.015, 0.03])  # of the patients a score was made on
BETA = np.array([-0.6, 1.2, 0.7, 0.4])


def identifiers(frame):
    """A name of each patient."""
    return np.array([f"p{i:03d}" for i in frame.index])


def folds(frame, repeat):
    """Folds by docs/study-file.md: in each site and class, rank by HMAC-SHA256, plus the site's place, modulo folds."""
    purpose = f"fold/repeat{repeat + 1}" if repeat else "fold"
    key = f"cohortium/1/{purpose}/{SEED}".encode()
    messages = [f"site{s}\x1f{i}".encode() for s, i in zip(frame["site"], identifiers(frame), strict=True)]
    order = frame.assign(hash=[hmac.digest(key, m, hashlib.sha256)[:8] for m in messages])
    ranks = order.sort_values("hash").groupby(["site", "y"]).cumcount().sort_index()
    return ((ranks + frame["site"]) % FOLDS).to_numpy()


def repeated(ours):
    """Main figures of the patients each fit has not seen, repeat by repeat."""
    del ours
    values = {name: [of[name] for of in _tested()] for name in MAIN}
    summary = {"values": np.array, "mean": np.mean, "sd": lambda of: np.std(of, ddof=1)}
    return {f"{name} {key}": f(of) for name, of in values.items() for key, f in summary.items()}


def optimism(ours):
    """The same figures of the fits on the patients they were made on, less those of the patients they have not seen."""
    del ours
    frame = data.breast_cancer()
    left = [folds(frame, r) != k for r in range(REPEATS) for k in range(FOLDS)]
    y, tested = frame["y"].to_numpy(), _tested()
    trained = [_figures(_scores(of)[of], y[of]) for of in left]
    apparent, found = _figures(_scores(np.ones(len(y), bool)), y), {}
    for name in MAIN:
        training, test = (np.mean([of[name] for of in figures]) for figures in (trained, tested))
        gap = training - test
        found[name] = [apparent[name], training, test, gap, apparent[name] - gap]
    return found


def _tested():
    frame = data.breast_cancer()
    y, found = frame["y"].to_numpy(), []
    for repeat in range(REPEATS):
        fold, score = folds(frame, repeat), np.empty(len(y))
        for k in range(FOLDS):
            score[fold == k] = _scores(fold != k)[fold == k]
        found.append(_figures(score, y))
    return found


def _scores(kept):
    """Risks on the grid of 1e-4 of all patients, by a fit to some."""
    frame = data.breast_cancer()
    design, y = sm.add_constant(data.standardised(frame, FOUR)), frame["y"].to_numpy()
    fit = sm.Logit(y[kept], design[kept]).fit(method="newton", tol=1e-14, disp=False)
    return np.rint(fit.predict(design) * 1e4) / 1e4


def _figures(score, y):
    z = special.logit(score.clip(1e-4, 1 - 1e-4))
    large = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=z).fit(tol=1e-14)
    slope = sm.Logit(y, sm.add_constant(z)).fit(method="newton", tol=1e-14, disp=False)
    figures = roc_auc_score(y, score), brier_score_loss(y, score), large.params[0], slope.params[1]
    return dict(zip(MAIN, figures, strict=True))


def closed_test(ours):
    """The score as it is, with a new intercept, with both, and new coefficients: likelihoods and their tests."""
    del ours
    frame = data.breast_cancer()
    raw, y = frame[THREE].to_numpy(), frame["y"].to_numpy(float)
    x = (raw - CENTRE) / SCALE
    z = BETA[0] + x @ BETA[1:]
    large = sm.GLM(y, np.ones(len(y)), family=sm.families.Binomial(), offset=z).fit(tol=1e-14)
    both, full, in_units = (
        sm.Logit(y, sm.add_constant(of)).fit(method="newton", tol=1e-14, disp=False, maxiter=100) for of in (z, x, raw)
    )
    likelihoods = np.array([(y * z - np.logaddexp(0, z)).sum(), large.llf, both.llf, full.llf])
    chi2 = 2 * (full.llf - likelihoods[:3])
    return {
        "chi2": chi2, "p": stats.chi2.sf(chi2, [4, 3, 2]), "log_likelihood": likelihoods,
        "updates": [[0, 1], [large.params[0], 1], both.params], "coefficients": in_units.params, "se": in_units.bse,
    }  # fmt: skip
