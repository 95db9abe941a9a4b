"""Moments: count, mean and standard deviation of every column, whatever its unit, exact to the last bit.

Used to standardise features before everything else, to screen them and to fill Table 1. Nothing is known yet about
the columns' scales (radiomics spans 1e-12 to 1e12), so no fixed-point step fits them all. Each value is therefore cut
into nine digits of 32 bits that are added as integers, as in a long accumulator (Kulisch, Computer Arithmetic and
Validity, 2013, chapter 8). Integer sums are exact: the order of rows and the split into sites change no bit.

Two sums: sum x, then sum (x - mean)^2 about the mean of the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cohortium.common.errors import SumRefused
from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts, Matrix, group_codes

DIGITS = 9
"""Digits of 2**32 each, from 2**128 down to 2**-160: squares of all values up to `LARGEST`."""
DIGIT_BITS = 32
FRACTION_BITS = 160
LARGEST = 2.0**62
"""Largest absolute value a column may hold, 4.6e18; spreads below 1e-23 count as none."""


class PowerSums(NamedTuple):
    """Sums of (x - centre)**power over the patients of each of g groups."""

    patients: Counts  # (g,)
    present: Counts  # (g, p), patients whose value is not missing
    digits: Counts  # (g, p, DIGITS), most significant first


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("moments.power_sums", adds_over="rows")
def power_sums(rows: Matrix, *, centre: Array, power: int) -> PowerSums:
    """Sum x - centre, or its square, over a site's patients.

    Parameters
    ----------
    centre : (g, p)
        One row a group; one row alone takes all patients together.
    power : {1, 2}

    Raises
    ------
    SumRefused
        A column holds an infinite value or one beyond `LARGEST`; or another power: enough of them fix every value.
    """
    if power not in (1, 2):
        raise SumRefused("moments.power_sums", f"power = {power}: sums of values and of squares leave, no other power")
    too_large = np.any(np.abs(rows.x) >= LARGEST, axis=0)
    if too_large.any():
        why = f"column {int(np.argmax(too_large))} holds a value beyond {LARGEST:.1e}; correct it or change its unit"
        raise SumRefused("moments.power_sums", why)
    groups = len(centre)
    group = group_codes(rows, groups)
    patients, present, digits = [], [], []
    for code in range(groups):
        x = rows.x[group == code]
        known = ~np.isnan(x)
        patients.append(len(x))
        present.append(known.sum(axis=0))
        digits.append(_digit_sums(np.where(known, x - centre[code], 0.0) ** power))
    return PowerSums(np.array(patients), np.array(present), np.array(digits))


def _digit_sums(values: Array) -> Counts:
    """Sum of the digits of `values` (n, p), (p, DIGITS): cut row by row, so that it adds over rows without rounding."""
    sums = []
    for place in range(DIGITS):
        unit = 2.0 ** (DIGIT_BITS * (DIGITS - 1 - place) - FRACTION_BITS)
        digit = np.trunc(values / unit)
        values = values - digit * unit  # exact: unit is a power of two
        sums.append(digit.astype(np.int64).sum(axis=0))
    return np.stack(sums, axis=-1)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """What standardising needs; arrays are (p,). A column without values has n = 0, mean = 0 and sd = 0."""

    patients: int
    n: Counts  # patients whose value is present
    mean: Array
    sd: Array  # divisor n - 1; exactly 0 for a constant column and for n < 2

    @property
    def bound(self) -> Array:
        """No value is further than this many standard deviations from the mean, (p,).

        (n - 1) / sqrt(n), attained by one outlier among equals (Samuelson, JASA 63:1522, 1968); known from n alone.
        """
        return (self.n - 1).clip(0) / np.sqrt(self.n.clip(1))

    def standardise(self, x: Array) -> Array:
        """(x - mean) / sd for (n, p) values; 0 in constant columns, NaN stays NaN."""
        return (x - self.mean) / np.where(self.sd > 0, self.sd, np.inf)


def fit(federation: Federation, columns: int) -> Moments:
    """Moments of the columns of `Matrix` rows, all patients together. Two sums."""
    return fit_groups(federation, columns, groups=1)[0]


def fit_groups(federation: Federation, columns: int, groups: int) -> list[Moments]:
    """Moments of each group 0..groups-1 of `Matrix` rows; patients with another group code are left out. Two sums."""
    first = federation.sum(power_sums, centre=np.zeros((groups, columns)), power=1)
    mean = _quotient(first.digits, first.present)
    second = federation.sum(power_sums, centre=mean, power=2)
    sd = np.sqrt(_quotient(second.digits, first.present - 1))
    return [Moments(patients=int(first.patients[g]), n=first.present[g], mean=mean[g], sd=sd[g]) for g in range(groups)]


def pooled(parts: Sequence[Moments]) -> Moments:
    """Moments of the union of disjoint groups of patients, without another sum (Chan, Golub & LeVeque 1983)."""
    n = np.sum([part.n for part in parts], axis=0)
    mean = np.sum([part.n * part.mean for part in parts], axis=0) / n.clip(1)
    within = np.sum([(part.n - 1).clip(0) * part.sd**2 for part in parts], axis=0)
    between = np.sum([part.n * (part.mean - mean) ** 2 for part in parts], axis=0)
    sd = np.sqrt((within + between) / (n - 1).clip(1))
    return Moments(patients=sum(part.patients for part in parts), n=n, mean=mean, sd=sd)


def _quotient(digits: Counts, divisor: Counts) -> Array:
    """Sum that `digits` (..., DIGITS) spell, over `divisor` (...), correctly rounded; 0 where divisor < 1."""
    flat = digits.reshape(-1, DIGITS).tolist()
    # a quotient of two Python integers is correctly rounded
    quotients = [
        _spell(line) / (by << FRACTION_BITS) if by > 0 else 0
        for line, by in zip(flat, divisor.ravel().tolist(), strict=True)
    ]
    return np.array([float(q) for q in quotients]).reshape(divisor.shape)


def _spell(digits: list[int]) -> int:
    total = 0
    for digit in digits:
        total = (total << DIGIT_BITS) + digit
    return total
