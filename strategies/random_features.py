"""Random features: public random cosines whose inner products approximate a Gaussian kernel.

Rahimi & Recht (NIPS 2007): z(x) = sqrt(2 / D) cos(W'x + b) with W ~ N(0, 2 gamma), b ~ U(0, 2 pi) has
z(x)'z(y) close to exp(-gamma |x - y|^2). W and b follow from the study's seed, so that every site makes the same ones
and nobody learns anything from them.
"""

from typing import NamedTuple

import numpy as np

from cohortium.strategies.rows import Array


class Kernel(NamedTuple):
    """What makes the features, all public."""

    gamma: float
    components: int
    seed: int


def features(x: Array, kernel: Kernel) -> Array:
    """Cosines of `x` (n, p), (n, components)."""
    rng = np.random.default_rng(kernel.seed)
    frequencies = rng.normal(0.0, np.sqrt(2 * kernel.gamma), (x.shape[1], kernel.components))
    phases = rng.uniform(0.0, 2 * np.pi, kernel.components)
    return np.sqrt(2 / kernel.components) * np.cos(combined(x, frequencies) + phases)


def combined(x: Array, weights: Array) -> Array:
    """``x @ weights``, (n, p) by (p, d), column by column: a patient's row does not depend on who else is in the table.

    The last digits of a matrix product of BLAS do.
    """
    total = np.zeros((len(x), weights.shape[1]))
    for column, weight in zip(x.T, weights, strict=True):
        total += column[:, None] * weight
    return total
