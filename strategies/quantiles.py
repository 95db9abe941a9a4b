"""Quantiles: medians and quartiles of columns across sites, by counting only.

Used for median imputation, for Table 1 and for public grids. Radix descent (Chaudhuri et al., exact selection by
counting): a float64 is mapped to a uint64 that sorts the same way; each sum counts the 256 children of the cells that
hold the wanted ranks, so four sums give the first 32 bits of the order statistic at that rank.

It stops there on purpose: a full order statistic is one patient's value. 32 bits are sign, exponent and 20 bits of
fraction: what is reported is the shortest decimal that starts with them, within 1e-6 of the value. A value recorded
with at most six digits is therefore exact, as is every integer below 2**21.
Definition 7 of Hyndman & Fan (The American Statistician 50:361, 1996), as in numpy and R.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common.federation import Federation, statistic
from cohortium.strategies.rows import Array, Counts, Matrix, group_codes

CHILDREN = 256
BYTES = 4
_SIGN = np.uint64(1 << 63)
_UNKNOWN_BITS = np.uint64(64 - 8 * BYTES)
_UNKNOWN = np.uint64((1 << 32) - 1)


class TopBytes(NamedTuple):
    """Patients by the first byte of their values, of g groups."""

    counts: Counts  # (g, p, CHILDREN); missing values are in none


class NextBytes(NamedTuple):
    """Patients of m cells by the byte that follows."""

    counts: Counts  # (m, CHILDREN)


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("quantiles.top_bytes", adds_over="rows")
def top_bytes(rows: Matrix, *, groups: int) -> TopBytes:
    """Count a site's values by their first byte; `groups` = 1 takes all patients together."""
    slots, values = _present(rows, groups)
    shape = (groups, rows.x.shape[1], CHILDREN)
    first = (values >> np.uint64(56)).astype(np.int64)
    return TopBytes(np.bincount(slots * CHILDREN + first, minlength=int(np.prod(shape))).reshape(shape))


@statistic("quantiles.next_bytes", adds_over="rows")
def next_bytes(rows: Matrix, *, groups: int, cells: Counts, depth: int) -> NextBytes:
    """Count a site's values in some cells by their byte number `depth`.

    Parameters
    ----------
    groups : int
        As in `top_bytes`.
    cells : (m,) int64, ascending
        slot * 256**depth + the first `depth` bytes, where slot = group * p + column.
    depth : {1, 2, 3}
    """
    slots, values = _present(rows, groups)
    prefix, child = np.divmod((values >> np.uint64(56 - 8 * depth)).astype(np.int64), CHILDREN)
    keys = slots * CHILDREN**depth + prefix
    at = np.searchsorted(cells, keys).clip(max=len(cells) - 1)
    inside = cells[at] == keys
    counts = np.bincount(at[inside] * CHILDREN + child[inside], minlength=len(cells) * CHILDREN)
    return NextBytes(counts.reshape(len(cells), CHILDREN))


def _present(rows: Matrix, groups: int) -> tuple[Counts, NDArray[np.uint64]]:
    """Slot and ordered integer of every value that is not missing and whose group is asked for."""
    group = group_codes(rows, groups)[:, None]
    known = ~np.isnan(rows.x) & (group >= 0) & (group < groups)
    slots = group * rows.x.shape[1] + np.arange(rows.x.shape[1])
    return slots[known], _ordered(rows.x[known])


def _ordered(x: Array) -> NDArray[np.uint64]:
    """Integers that sort as the doubles do: negative numbers reversed, below the positive ones."""
    bits = (x + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


# --- at the server --------------------------------------------------------------------------------------------


def fit(federation: Federation, probabilities: Sequence[float]) -> Array:
    """Quantiles of the columns of `Matrix` rows, all patients together, (p, q). Four sums.

    Parameters
    ----------
    probabilities : (q,)
        Between 0 and 1.

    Returns
    -------
    array
        NaN in columns without values.
    """
    return fit_groups(federation, probabilities, groups=1)[0]


def fit_groups(federation: Federation, probabilities: Sequence[float], groups: int) -> Array:
    """Quantiles within each group 0..groups-1, (groups, p, q); patients with another group code are left out."""
    top = federation.sum(top_bytes, groups=groups).counts
    n = top.sum(axis=-1, keepdims=True)
    position = (n - 1).clip(0) * np.asarray(probabilities, dtype=np.float64)  # (g, p, q)
    below = np.floor(position)
    ranks = np.stack([below, np.ceil(position)]).astype(np.int64)
    low, high = _order_statistics(federation, top, ranks)
    return np.where(n > 0, low + (high - low) * (position - below), np.nan)


def _order_statistics(federation: Federation, top: Counts, ranks: Counts) -> Array:
    """Values at zero-based `ranks` (..., g, p, q), cut to 32 bits; each wanted rank descends on its own."""
    groups, columns, _ = top.shape
    slots = np.broadcast_to(np.arange(groups * columns).reshape(groups, columns, 1), ranks.shape).ravel()
    prefix = np.zeros(slots.size, dtype=np.int64)
    rank, counts = ranks.ravel(), top.reshape(-1, CHILDREN)[slots]
    for depth in range(1, BYTES + 1):
        through = counts.cumsum(axis=1)
        child = (through <= rank[:, None]).sum(axis=1).clip(max=CHILDREN - 1)  # the limit: columns without values
        rank = rank - np.where(child > 0, np.take_along_axis(through, child[:, None] - 1, axis=1)[:, 0], 0)
        prefix = prefix * CHILDREN + child
        if depth < BYTES:
            cells, place = np.unique(slots * CHILDREN**depth + prefix, return_inverse=True)
            counts = federation.sum(next_bytes, groups=groups, cells=cells, depth=depth).counts[place]
    return _value(prefix.astype(np.uint64)).reshape(ranks.shape)


def _value(prefix: NDArray[np.uint64]) -> Array:
    """The shortest decimal among the doubles whose ordered integers start with the 32 bits of `prefix`."""
    bits = prefix << _UNKNOWN_BITS
    positive = bits & _SIGN != 0
    least = np.where(positive, bits ^ _SIGN, ~bits & ~_UNKNOWN & ~_SIGN)  # of the magnitude
    magnitude = shortest_decimal(least.view(np.float64), (least | _UNKNOWN).view(np.float64))
    return np.where(positive, magnitude, -magnitude)


def shortest_decimal(low: Array, high: Array) -> Array:
    """The number with fewest significant digits in each interval [low, high], 0 <= low <= high; both are doubles.

    A value that was recorded with a few digits is the only one of that length in a cell of 32 bits, so it is found
    exactly; a long one stays as uncertain as the cell is wide.
    """
    found = np.where(low == 0, 0.0, high)
    open_ = np.isfinite(high) & (low > 0)
    scale = np.floor(np.log10(high, where=open_, out=np.zeros_like(high)))
    for digits in range(1, 9):  # 20 bits tell numbers of six digits apart
        exponent = scale + 1 - digits
        # whole powers of ten are exact up to 1e22: divide by them or multiply, so that 0.7 is 7 / 10 and not 7 * 0.1
        with np.errstate(over="ignore", invalid="ignore"):  # beyond the range of doubles there is no such decimal
            step = 10.0 ** np.abs(exponent)
            whole = np.where(exponent > 0, np.ceil(low / step), np.ceil(low * step))
            candidate = np.where(exponent > 0, whole * step, whole / step)
        fits = open_ & (candidate >= low) & (candidate <= high)
        found = np.where(fits, candidate, found)
        open_ &= ~fits
    return np.where(open_, low, found)
