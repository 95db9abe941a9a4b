"""References of Table 1, screening and correlation: pandas, numpy and scipy on pooled rows; nothing of the package."""

import data
import numpy as np
from scipy import stats

FEATURES = [f"x{i:02d}" for i in range(30)]


def moments(ours):
    """Mean and SD of every feature by outcome."""
    del ours
    groups = data.breast_cancer().groupby("y")[FEATURES]
    return {"mean": groups.mean().to_numpy(), "sd": groups.std(ddof=1).to_numpy()}


def quartiles(ours):
    """Type-7 quartiles by outcome."""
    del ours
    groups = data.breast_cancer().groupby("y")[FEATURES]
    return {"quartiles": np.stack([groups.quantile(q).to_numpy() for q in (0.25, 0.5, 0.75)], axis=-1)}


def t_test(ours):
    """Student's and Welch's t, and their p."""
    del ours
    frame = data.breast_cancer()
    one, zero = (frame.loc[frame.y == y, FEATURES].to_numpy() for y in (1, 0))
    student, welch = (stats.ttest_ind(one, zero, equal_var=equal) for equal in (True, False))
    return {"t": student.statistic, "p": student.pvalue, "t_welch": welch.statistic, "p_welch": welch.pvalue}


def differences(ours):
    """Difference of the means over the root of the mean variance (Austin 2009)."""
    del ours
    groups = data.breast_cancer().groupby("y")[FEATURES]
    mean, variance = groups.mean(), groups.var(ddof=1)
    return {"standardised_difference": (mean.loc[1] - mean.loc[0]) / np.sqrt(variance.mean())}


def independence(ours):
    """chi-squared of a variable of four levels by outcome."""
    del ours
    frame = data.breast_cancer()
    table = np.array([np.bincount(quarter_of(frame)[frame.y == y], minlength=4) for y in (0, 1)])
    return {"chi2_p": stats.chi2_contingency(table, correction=False).pvalue}


def quarter_of(frame):
    """A variable of four levels."""
    return np.searchsorted([11.7, 13.4, 15.8], frame["x00"].to_numpy())


def correlation(ours):
    """Pearson correlations."""
    del ours
    return {"r": np.corrcoef(data.breast_cancer()[FEATURES].to_numpy().T)}
