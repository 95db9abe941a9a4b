"""Scored patients: three binary models of known quality, on the reported grid, for the tests of validation figures."""

import numpy as np
from scipy import special

from cohortium.strategies.rows import Scored

MODELS = ("sharp", "blunt", "staged")


def patients(n: int = 600, *, seed: int = 11) -> Scored:
    """An overconfident model, a weaker one and one with three levels only; five folds."""
    rng = np.random.default_rng(seed)
    signal, noise = rng.normal(size=(2, n))
    y = (rng.random(n) < special.expit(-0.7 + 1.3 * signal)).astype(float)
    sharp = special.expit(-0.5 + 2.0 * signal)
    blunt = special.expit(-0.8 + 0.6 * signal + 0.5 * noise)
    staged = np.array([0.1, 0.3, 0.7])[np.digitize(signal + 0.3 * noise, [-0.5, 0.9])]
    score = np.round(np.column_stack([sharp, blunt, staged]), 4)
    return Scored(score=score, y=y, fold=rng.integers(0, 5, n))
