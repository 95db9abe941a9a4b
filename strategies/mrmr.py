"""mRMR: features that tell the classes apart and say little of each other, by the F-correlation quotient.

Minimum redundancy, maximum relevance (Ding & Peng, J. Bioinform. Comput. Biol. 3:185, 2005; the quotient of F statistic
and mean absolute correlation is theirs for continuous features, "FCQ"). F = t^2 and the correlations are those of
screening and of correlation pruning, so it is free where either is asked for; at most one feature for every four
patients, as for any matrix of products.
"""

import numpy as np

from cohortium.strategies.rows import Array, Counts

LEAST_REDUNDANCY = 1e-3
"""Mean |r| below which a feature gains nothing more by being unlike the others: a quotient by 0 would decide alone."""


def select(f: Array, correlation: Array, keep: int) -> Counts:
    """At most `keep` columns, the best first; no sum.

    The first has the largest F, each next one the largest F / mean |r| with those before it; of equals the first.

    Parameters
    ----------
    f : (p,)
        F statistic of each column against the classes; a column without a test (NaN) is never kept.
    correlation : (p, p)
    """
    relevance = np.where(np.isnan(f), -np.inf, f)
    redundancy = np.zeros(len(f))
    chosen: list[int] = []
    while len(chosen) < min(keep, int((relevance > -np.inf).sum())):
        with np.errstate(invalid="ignore"):  # an infinite F (classes without spread) stays first
            quotient = relevance / np.maximum(redundancy / max(len(chosen), 1), LEAST_REDUNDANCY)
        quotient[chosen] = -np.inf
        chosen.append(int(np.argmax(quotient)))
        redundancy += np.abs(correlation[chosen[-1]])
    return np.array(chosen, dtype=np.int64)
