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
    # not a matrix product of BLAS: one patient's features do not depend on which others are in the table
    return np.sqrt(2 / kernel.components) * np.cos(np.einsum("np,pd->nd", x, frequencies) + phases)
