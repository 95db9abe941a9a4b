"""References of preprocessing and selection: scikit-learn, scipy and statsmodels on pooled rows; nothing of ours."""

import warnings

import data
import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # what makes IterativeImputer importable
from sklearn.feature_selection import f_classif
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LinearRegression
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

FEATURES = [f"x{i:02d}" for i in range(30)]
MANY = [f"f{i:03d}" for i in range(600)]
TEN = FEATURES[:10]
TARGETS = [1, 5, 6, 8, 9]
CYCLES = 10
THREE = ["x01", "x04", "x08"]
IMPUTATIONS = 5
PROTECTED = ["y", "x28"]
HARMONISED = FEATURES[:12]


def fisher(ours):
    """Fisher's exact p of sparse two by two tables: large tumours (three limits) by outcome."""
    del ours
    frame = data.breast_cancer()
    tables = [np.array([np.bincount(rare(frame)[frame.y == y, k], minlength=2) for y in (0, 1)]) for k in range(3)]
    return {"p": [stats.fisher_exact(table).pvalue for table in tables]}


def rare(frame):
    """Three rare findings, 0 or 1."""
    return np.column_stack([frame["x25"] > 0.7, frame["x28"] > 0.48, frame["x10"] > 1.6]).astype(int)


def rank_screen(ours):
    """Features kept at p < 0.05 by the Mann-Whitney test, and the 100 of the largest |AUC - 1/2| among them."""
    del ours
    frame = data.many_features()
    one, zero = (frame.loc[frame.y == y, MANY].to_numpy() for y in (1, 0))
    test = stats.mannwhitneyu(one, zero, method="asymptotic")
    strength = np.abs(test.statistic / (len(one) * len(zero)) - 0.5)
    below = np.flatnonzero(test.pvalue < 0.05)
    best = below[np.argsort(-strength[below], kind="stable")][:100]
    return {"mann_whitney": np.isin(np.arange(600), below), "auc": np.isin(np.arange(600), best)}


def spearman(ours):
    """Spearman's rho of the values."""
    del ours
    return {"rho": stats.spearmanr(data.breast_cancer()[FEATURES].to_numpy()).statistic}


def spearman_of_bins(ours):
    """Spearman's rho of the number of the bin that holds a value; the bins' public edges are the federation's."""
    frame = data.breast_cancer()
    x = data.standardised(frame, FEATURES).T
    bins = [np.searchsorted(edges, column, side="right") for edges, column in zip(ours["edges"], x, strict=True)]
    return {"rho": stats.spearmanr(np.array(bins).T).statistic}


def mrmr(ours):
    """Order of the first fifteen features by F over mean |r|, one candidate after another."""
    del ours
    frame = data.breast_cancer()
    x = frame[FEATURES].to_numpy()
    relevance, r = f_classif(x, frame["y"])[0], np.abs(np.corrcoef(x.T))
    chosen = [int(relevance.argmax())]
    while len(chosen) < 15:
        rest = [j for j in range(30) if j not in chosen]
        chosen.append(max(rest, key=lambda j: relevance[j] / max(r[j, chosen].mean(), 1e-3)))
    return {"order": chosen}


def icc(ours):
    """ICC(2,1) and ICC(3,1) of three repeated measurements by two-way analysis of variance."""
    del ours
    _, x = data.repeated()
    found = np.array([_two_way(x[:, j]) for j in range(x.shape[1])])
    return {"icc_2_1": found[:, 0], "icc_3_1": found[:, 1]}


def _two_way(x):
    n, k = x.shape
    long = pd.DataFrame(
        {"v": x.ravel() / x.std(), "patient": np.repeat(np.arange(n), k), "time": np.tile(np.arange(k), n)}
    )
    patients, times, error = anova_lm(ols("v ~ C(patient) + C(time)", long).fit())["mean_sq"]
    consistency = (patients - error) / (patients + (k - 1) * error)
    return (patients - error) / (patients + (k - 1) * error + k * (times - error) / n), consistency


def fills(ours):
    """Median of columns with gaps; most frequent level."""
    del ours
    frame = data.with_gaps()
    return {
        "median": SimpleImputer(strategy="median").fit(frame[TEN]).statistics_,
        "mode": SimpleImputer(strategy="most_frequent").fit(frame[["grade"]]).statistics_,
    }


def chained(ours):
    """Ten columns after ten cycles of linear regressions, in standard deviations."""
    del ours
    x = data.with_gaps()[TEN].to_numpy()
    imputer = IterativeImputer(
        LinearRegression(), max_iter=CYCLES, tol=0, imputation_order="ascending", initial_strategy="mean"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of cycles
        return {"completed": imputer.fit_transform(x) / np.nanstd(x, axis=0)}


def imputed_designs():
    """Three standardised columns of breast_cancer, one with gaps filled by five draws of no model."""
    frame = data.breast_cancer()
    x = data.standardised(frame, THREE)
    rng = np.random.default_rng(12)
    gaps = rng.random(len(x)) < 0.25
    found = []
    for _ in range(IMPUTATIONS):
        filled = x.copy()
        filled[gaps, 1] = 0.4 * x[gaps, 2] + 0.9 * rng.standard_normal(gaps.sum())
        found.append(filled)
    return frame, found


def rubin(ours):
    """Rubin's rules over Logit fits, and Barnard and Rubin's degrees of freedom, by their formulas."""
    del ours
    frame, designs = imputed_designs()
    fits = [sm.Logit(frame["y"], sm.add_constant(x)).fit(disp=False, method="newton", tol=1e-14) for x in designs]
    estimates, variances = np.array([f.params for f in fits]), np.array([f.bse**2 for f in fits])
    m, complete = len(fits), len(frame) - 4
    between = estimates.var(0, ddof=1) * (1 + 1 / m)
    total = variances.mean(0) + between
    share = between / total
    observed = (complete + 1) / (complete + 3) * complete * (1 - share)
    return {
        "estimates": estimates.mean(0), "se": np.sqrt(total),
        "degrees_of_freedom": 1 / (share**2 / (m - 1) + 1 / observed),
    }  # fmt: skip


def combat(ours):
    """Features freed of site effects by the formulas of Johnson, Li & Rabinovic 2007 on pooled rows, in SD."""
    del ours
    frame = data.breast_cancer()
    x, protect = frame[HARMONISED].to_numpy(), frame[PROTECTED].to_numpy(float)
    site = frame["site"].to_numpy()
    dummies = (site[:, None] == np.unique(site)).astype(float)
    design = np.column_stack([dummies, protect])
    coefficients = np.linalg.lstsq(design, x, rcond=None)[0]
    k = dummies.shape[1]
    expected = dummies.mean(0) @ coefficients[:k] + protect @ coefficients[k:]
    sd = np.sqrt(((x - design @ coefficients) ** 2).mean(0))
    out = np.empty_like(x)
    for s in np.unique(site):
        mine = site == s
        out[mine] = _without_site((x[mine] - expected[mine]) / sd) * sd + expected[mine]
    return {"harmonised": out / x.std(0)}


def _without_site(z):
    """One site's standardised rows, freed of its location and scale, shrunk by empirical Bayes."""
    n, g_hat, d_hat = len(z), z.mean(0), z.var(0, ddof=1)
    g_bar, t2, m, s2 = g_hat.mean(), g_hat.var(ddof=1), d_hat.mean(), d_hat.var(ddof=1)
    a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    g, d, change = g_hat, d_hat, 1.0
    while change > 1e-4:  # the stopping rule of the published software
        g_new = (t2 * n * g_hat + d * g_bar) / (t2 * n + d)
        d_new = (0.5 * ((z - g_new) ** 2).sum(0) + b) / (n / 2 + a - 1)
        change = max((np.abs(g_new - g) / g).max(), (np.abs(d_new - d) / d).max())
        g, d = g_new, d_new
    return (z - g) / np.sqrt(d)


def multiplicity(ours):
    """Holm and Benjamini-Hochberg over the t-tests of 600 features."""
    del ours
    frame = data.many_features()
    p = stats.ttest_ind(*(frame.loc[frame.y == y, MANY].to_numpy() for y in (1, 0))).pvalue
    return {"holm": multipletests(p, method="holm")[1], "bh": multipletests(p, method="fdr_bh")[1]}
