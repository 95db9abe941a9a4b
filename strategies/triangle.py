"""Triangle: a symmetric matrix as its upper triangle, which is all of it that needs to travel."""

from functools import cache

import numpy as np

from cohortium.strategies.rows import Array, Counts


def upper(matrix: Array) -> Array:
    """Upper triangle of a (p, p) matrix, row by row, (p (p + 1) / 2,)."""
    return matrix[_places(len(matrix))]


def symmetric(triangle: Array) -> Array:
    """The (p, p) matrix whose upper triangle is given, row by row."""
    p = int(np.sqrt(2 * len(triangle)))  # p (p + 1) / 2 lies between p^2 / 2 and (p + 1)^2 / 2
    matrix = np.zeros((p, p))
    rows, columns = _places(p)
    matrix[rows, columns] = triangle
    matrix[columns, rows] = triangle
    return matrix


@cache
def _places(p: int) -> tuple[Counts, Counts]:
    return np.triu_indices(p)
