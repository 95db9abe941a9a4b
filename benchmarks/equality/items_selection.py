"""Items of preprocessing and selection."""

from typing import Any

import data
import numpy as np
import references_selection as references
from federations import at_sites
from item import Federate, Item

from cohortium.strategies import (
    chained,
    combat,
    correlation,
    icc,
    levels,
    logistic,
    moments,
    mrmr,
    multiplicity,
    quantiles,
    rank_correlation,
    rank_tests,
    rubin,
    screening,
    table_one,
)
from cohortium.strategies.chained import Incomplete
from cohortium.strategies.icc import Repeated
from cohortium.strategies.rows import Labelled, Matrix


def _matrix(frame: Any, x: np.ndarray) -> list[Matrix]:
    return at_sites(Matrix, frame, x=x, group=frame["y"].to_numpy(np.int64))


def _fisher(federate: Federate) -> dict[str, Any]:
    frame = data.breast_cancer()
    counts = table_one.categorical(federate(_matrix(frame, references.rare(frame).astype(float))), 2, 2).counts
    tests = [table_one.independence(counts[:, j]) for j in range(3)]
    return {"p": [p for name, p in tests if name == "fisher"]}


def _rank_screen(federate: Federate) -> dict[str, Any]:
    frame = data.many_features()
    x = frame[references.MANY].to_numpy()
    centre, scale, fill = x.mean(0), x.std(0, ddof=1), np.median(x, axis=0)
    kept = {}
    for test, most in (("mann_whitney", None), ("auc", 100)):
        sites = federate(_matrix(frame, (x - centre) / scale))
        found = rank_tests.screen(sites, 600, 0.05, test=test, keep_at_most=most, centre=centre, scale=scale, fill=fill)
        kept[test] = np.isin(np.arange(600), found.kept)
    return kept


def _breast() -> list[Matrix]:
    frame = data.breast_cancer()
    return _matrix(frame, data.standardised(frame, references.FEATURES))


def _spearman(federate: Federate) -> dict[str, Any]:
    sites = federate(_breast())
    rho = rank_correlation.spearman(sites)
    counts = sites.sum(rank_tests.occupancy, grid=rank_tests.GRID).counts[0]
    return {"rho": rho, "edges": rank_tests.bins(counts, rank_tests.MOST_BINS)}


def _mrmr(federate: Federate) -> dict[str, Any]:
    sites = federate(_breast())
    t = screening.t_test(sites, 30).t
    return {"order": mrmr.select(t**2, correlation.gram(sites), 15)}


def _icc(federate: Federate) -> dict[str, Any]:
    frame, x = data.repeated()
    found = icc.fit(federate(at_sites(Repeated, frame, x=x)), x.mean((0, 2)), x.std((0, 2)))
    return {"icc_2_1": found.icc_2_1, "icc_3_1": found.icc_3_1}


def _fills(federate: Federate) -> dict[str, Any]:
    frame = data.with_gaps()
    counts = levels.fit(federate(_matrix(frame, frame[["grade"]].to_numpy())), 4)
    median = quantiles.fit(federate(_matrix(frame, frame[references.TEN].to_numpy())), (0.5,))
    return {"median": median[:, 0], "mode": levels.mode(counts)}


def _chained(federate: Federate) -> dict[str, Any]:
    frame = data.with_gaps()
    x, key = frame[references.TEN].to_numpy(), np.arange(len(frame))
    known = moments.fit(federate(_matrix(frame, x)), 10)
    sites = federate(at_sites(Incomplete, frame, x=x, key=key))
    chain = chained.fit(sites, known, known.mean, np.array(references.TARGETS), references.CYCLES)
    return {"completed": chained.complete(Incomplete(x, key), chain) / np.nanstd(x, axis=0)}


def _rubin(federate: Federate) -> dict[str, Any]:
    frame, designs = references.imputed_designs()
    y, fold = frame["y"].to_numpy(float), np.zeros(len(frame), np.int64)
    fits = [logistic.fit(federate(at_sites(Labelled, frame, x=x, y=y, fold=fold)), 3) for x in designs]
    found = rubin.pool(
        np.array([fit.coefficients for fit in fits]), np.array([fit.covariance for fit in fits]), len(frame) - 4
    )
    return {
        "estimates": found.estimates, "se": np.sqrt(np.diag(found.covariance)),
        "degrees_of_freedom": found.degrees_of_freedom,
    }  # fmt: skip


def _combat(federate: Federate) -> dict[str, Any]:
    frame = data.breast_cancer()
    x, protect = frame[references.HARMONISED].to_numpy(), frame[references.PROTECTED].to_numpy(float)
    fitted = combat.fit(federate(_matrix(frame, np.column_stack([x, protect]))), x.shape[1], protect.shape[1])
    out = np.empty_like(x)
    for site in frame["site"].unique():
        mine = (frame["site"] == site).to_numpy()
        out[mine] = combat.harmonise(x[mine], protect[mine], np.ones(mine.sum(), dtype=bool), fitted)
    return {"harmonised": out / x.std(0)}


def _multiplicity(federate: Federate) -> dict[str, Any]:
    frame = data.many_features()
    p = screening.t_test(federate(_matrix(frame, frame[references.MANY].to_numpy())), 600).p
    return {"holm": multiplicity.holm(p), "bh": multiplicity.benjamini_hochberg(p)}


BREAST = "breast_cancer, 4 sites"
ITEMS = (
    Item(name="Fisher's exact test of rare findings", data=BREAST, ours=_fisher, theirs=references.fisher,
         reference="scipy.stats.fisher_exact"),
    Item(name="screening by Mann-Whitney and by AUC, 600 features: the set that is kept", data=BREAST,
         ours=_rank_screen, theirs=references.rank_screen, reference="scipy.stats.mannwhitneyu", target=0.0),
    Item(name="Spearman's correlations of bins, 30 features", data=BREAST, ours=_spearman,
         theirs=references.spearman_of_bins, reference="scipy.stats.spearmanr of the same bins"),
    Item(name="Spearman's correlations, 30 features: not equal, distance of bins from values", data=BREAST,
         ours=_spearman, theirs=references.spearman, target=5e-3,
         reference="scipy.stats.spearmanr of the values; 113 bins of 5 patients, no bound is certified"),
    Item(name="mRMR: order of the first 15 features", data=BREAST, ours=_mrmr, theirs=references.mrmr,
         reference="scikit-learn f_classif, numpy.corrcoef", target=0.0),
    Item(name="ICC(2,1) and ICC(3,1) of three measurements", data="breast_cancer (every sixth), 4 sites", ours=_icc,
         theirs=references.icc, reference="statsmodels anova_lm"),
    Item(name="imputation by median and by most frequent level", data=BREAST, ours=_fills, theirs=references.fills,
         reference="scikit-learn SimpleImputer", target=6e-7),
    Item(name="chained equations, 10 cycles over 5 columns: completed values", data=BREAST, ours=_chained,
         theirs=references.chained, reference="scikit-learn IterativeImputer"),
    Item(name="Rubin's rules over 5 imputations: estimates, SE, degrees of freedom", data=BREAST, ours=_rubin,
         theirs=references.rubin, reference="statsmodels Logit, Rubin's formulas"),
    Item(name="ComBat with two protected covariates: harmonised features", data=BREAST, ours=_combat,
         theirs=references.combat, reference="formulas of Johnson et al. 2007"),
    Item(name="Holm and Benjamini-Hochberg over 600 t-tests", data=BREAST, ours=_multiplicity,
         theirs=references.multiplicity, reference="scipy.stats.ttest_ind, statsmodels multipletests"),
)  # fmt: skip
