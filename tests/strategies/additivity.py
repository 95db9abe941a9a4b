"""Additivity: what every local half must satisfy, and odd ways to split patients into sites.

Used by the tests of all statistics: `check` holds a statistic to what it declares, `FixedPointSites` adds as a masked
sum does (rounded to the fraction bits that the bound leaves, refusing what is beyond the bound).
"""

from collections.abc import Sequence
from math import floor, log2
from typing import Any, NamedTuple, TypeVar

import numpy as np

from cohortium.common.federation import DEFAULT_BOUND, PooledSites, Statistic

Rows = TypeVar("Rows", bound=NamedTuple)


def take(rows: Rows, which: Any) -> Rows:
    """Some patients of `rows`."""
    return type(rows)(*(field[which] for field in rows))


def concatenate(parts: Sequence[Rows]) -> Rows:
    return type(parts[0])(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def split(rows: Rows, sizes: Sequence[int]) -> list[Rows]:
    """Consecutive patients to one site after another."""
    ends = np.cumsum(sizes)
    assert ends[-1] == len(rows[0])
    return [take(rows, slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def odd_sites(rows: Rows, classes: np.ndarray) -> list[Rows]:
    """An empty site, one patient, a site with class 0 only, one with class 1 only, and two of the rest."""
    zeros, ones = np.flatnonzero(classes == 0), np.flatnonzero(classes == 1)
    rest = np.setdiff1d(np.arange(len(classes)), [*zeros[:7], *ones[:5]])
    parts = [[], zeros[:1], zeros[1:7], ones[:5], rest[: len(rest) // 3], rest[len(rest) // 3 :]]
    return [take(rows, np.array(part, dtype=np.int64)) for part in parts]


def check(what: Statistic, rows: Rows, *, rtol: float = 1e-12, **parameters: Any) -> None:
    """Hold a statistic to its contract on `rows`.

    It adds over what it declares, does not depend on the order of rows, answers no rows with zeros of the same shapes
    and types, and gives only int64 and float64 (or float32) arrays.
    """
    rng = np.random.default_rng(20)
    n = len(rows[0])
    whole = what.local(rows, **parameters)
    assert all(np.asarray(field).dtype.str[1:] in ("i8", "f8", "f4") for field in whole), what.name
    _same(what, whole, what.local(take(rows, rng.permutation(n)), **parameters), rtol)

    nobody = what.local(take(rows, slice(0, 0)), **parameters)
    for empty, full in zip(nobody, whole, strict=True):
        assert np.shape(empty) == np.shape(full), what.name
        assert np.asarray(empty).dtype == np.asarray(full).dtype, what.name
        assert not np.any(empty), what.name

    if what.adds_over == "rows":
        for cuts in ([0, n], [1, n - 1], [n // 2, n - n // 2], [n // 3, 0, 1, n - 1 - n // 3]):
            shares = [what.local(part, **parameters) for part in split(rows, cuts)]
            _same(what, whole, type(whole)(*(np.sum(field, axis=0) for field in zip(*shares, strict=True))), rtol)


def _same(what: Statistic, one: NamedTuple, other: NamedTuple, rtol: float) -> None:
    for name, a, b in zip(one._fields, one, other, strict=True):
        if np.asarray(a).dtype.kind == "i":
            np.testing.assert_array_equal(a, b, err_msg=f"{what.name}.{name}")
        else:
            scale = np.abs(a).max(initial=1.0)  # rounding is relative to the largest element
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=f"{what.name}.{name}")


class FixedPointSites(PooledSites):
    """Sites whose floats are rounded as in a masked sum, f = min(40, floor(61 - log2 sites - log2 bound)) bits."""

    def sum(self, what: Statistic, *, bound: float = DEFAULT_BOUND, **parameters: Any) -> Any:
        self.fraction_bits = min(40, floor(61 - log2(len(self.sites)) - log2(bound)))
        for rows in self.sites:
            for name, field in what.local(rows, **parameters)._asdict().items():
                if np.asarray(field).dtype.kind == "f":
                    assert np.abs(field).max(initial=0.0) <= bound, f"{what.name}.{name} exceeds its bound"
        return super().sum(what, bound=bound, **parameters)
