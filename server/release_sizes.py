"""Release sizes: how many numbers one answer of a site holds at most, found by running a local half on no patients.

What only the data decide stays a letter, and the size becomes a polynomial in it.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from cohortium.common.federation import Statistic
from cohortium.common.study import Study
from cohortium.common.sum_setup import threshold

LETTERS = {
    "f": "image features among the columns; their names leave once, in the clear",
    "c": "cells of the score: 10,001 where it is exact; else a hundred even ones (of a linear predictor 8 an octave), "
    "then up to 4 for 10 patients, and in the tables that follow 1 for about 10",
    "t": "cells of the time grid in which somebody has the event, and one beside each horizon",
    "u": "cells of the time grid up to the end of follow-up, rounded up to a power of two",
}
NOBODY = np.empty(0)
Mask = Literal["whole", "survivors", "none"]
Share = tuple[Any, dict[str, Any]]
"""Rows without a patient, and the parameters of a statistic."""


@dataclass(frozen=True)
class Release:
    """One statistic over one part: what it is asked for, and the most numbers that one answer holds.

    `size` gives them for values of the `letters`; `mask` says over which sites the sum opens.
    """

    part: str
    statistic: str
    purposes: tuple[str, ...]
    letters: str
    size: Callable[..., int]
    mask: Mask

    @property
    def formula(self) -> str:
        """`size` in its letters, e.g. ``"6 + 3 f + 1/2 f²"``."""
        return polynomial(self.size, self.letters)


def release(
    study: Study, part: str, purpose: str, what: Statistic, share: Callable[..., Share], letters: str = ""
) -> Release:
    """A release whose answers are those of ``what.local`` on ``share(**values of the letters)``."""

    def size(**values: int) -> int:
        rows, parameters = share(**values)
        return sum(np.asarray(field).size for field in what.local(rows, **parameters))

    return Release(part, what.name, (purpose,), letters, size, mask_of(study, what))


def mask_of(study: Study, what: Statistic) -> Mask:
    """Whether a sum is masked, and whether it may open without a site that dropped out."""
    if not study.privacy.secure_aggregation:
        return "none"
    spare = len(study.sites) - threshold(len(study.sites), study.privacy.minimum_sites)
    goes_on = what.mode == "survivors" and study.federation.on_departure == "continue" and spare > 0
    return "survivors" if goes_on else "whole"


def polynomial(size: Callable[..., int], letters: str) -> str:
    """A size as a polynomial of degree two at most, exact.

    Raises
    ------
    ValueError
        It is none.
    """
    powers = [p for p in itertools.product(range(3), repeat=len(letters)) if sum(p) <= 2]
    points = list(itertools.product(range(1, 5), repeat=len(letters)))  # one more than a polynomial needs: a check
    values = [size(**dict(zip(letters, point, strict=True))) for point in points]
    design = np.prod(
        np.array(points, float).reshape(len(points), 1, -1) ** np.array(powers).reshape(len(powers), -1), 2
    )
    solved = np.linalg.lstsq(design, np.array(values, float), rcond=None)[0]
    factors = [Fraction(float(factor)).limit_denominator(2) for factor in solved]  # halves: upper triangles
    if any(
        sum(factor * int(np.prod(np.power(point, p))) for factor, p in zip(factors, powers, strict=True)) != value
        for point, value in zip(points, values, strict=True)
    ):
        raise ValueError(f"a size in {', '.join(letters)} that is no polynomial of degree two")
    terms = [_term(factor, p, letters) for factor, p in zip(factors, powers, strict=True) if factor]
    return " + ".join(terms) or "0"


def _term(factor: Fraction, powers: tuple[int, ...], letters: str) -> str:
    product = " ".join(
        letter + ("²" if power == 2 else "") for letter, power in zip(letters, powers, strict=True) if power
    )
    if not product:
        return f"{int(factor):,}" if factor.denominator == 1 else str(factor)
    number = "" if factor == 1 else f"{int(factor):,} " if factor.denominator == 1 else f"{factor} "
    return number + product
