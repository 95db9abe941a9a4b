"""Rank tests: Mann-Whitney and univariate AUC of every feature, and exactly the features that the pooled test keeps.

Mann & Whitney (Annals of Mathematical Statistics 18:50, 1947): U counts the pairs of patients of the two classes in
which the one of class 1 has the larger value, ties one half; AUC = U / (n0 n1). Normal approximation with correction
for ties and continuity, as scipy.stats.mannwhitneyu (method="asymptotic").

Two sums for all features together: patients (no outcome) in 256 even cells of the standardised value, then the two
classes in at most 128 bins of about equal counts, never more than one for five patients. What the bins leave open
bounds U, the ties and hence p. Only a feature whose bounds contain the decision has its open cells split, and only
until it is decided: further sums, in which no feature takes part that is certain already. A cell that is cut down to a
single double is no longer open: its patients are tied. The kept set is therefore that of the pooled test, while most
features are never known finer than a bin. Test of AUC = 1/2: that of U. DeLong's variance belongs to the alternative
and vanishes where two classes are apart.
"""

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cohortium.common.federation import Federation, statistic
from cohortium.strategies.quantiles import shortest_decimal
from cohortium.strategies.rows import Array, Counts, Matrix, group_codes

GRID = np.concatenate([[-np.inf], np.linspace(-4, 4, 255), [np.inf]])
"""Edges of the 256 cells in which bins are looked for, in standard deviations."""
MOST_BINS = 128
PATIENTS_A_BIN = 5
PATIENTS_A_COLUMN = 4
SPLIT_NUMBERS = 1 << 14
"""Counts that one sum of splitting asks for, about, between the least and the most pieces a cell."""
LEAST_PIECES, MOST_PIECES = 4, 64
MOST_CELLS = 4096
"""Cells that one sum of splitting cuts."""
MARKS = 4
"""Pieces more than the even ones: two single values that many patients may share, and what lies between."""
_SIGN = np.uint64(1 << 63)

Test = Literal["mann_whitney", "auc"]


class Cells(NamedTuple):
    """Patients in the cells of some columns."""

    counts: Counts  # (groups, m, cells); missing values are in none


# --- at each site ---------------------------------------------------------------------------------------------


@statistic("rank_tests.occupancy", adds_over="rows")
def occupancy(rows: Matrix, *, grid: Array) -> Cells:
    """Count a site's patients, whatever their class, in cells of every standardised column.

    Parameters
    ----------
    grid : (cells + 1,) or (p, cells + 1)
        Edges, ascending, for all columns or each; a cell holds its lower one.
    """
    p = rows.x.shape[1]
    return _count(rows, np.arange(p), np.broadcast_to(grid, (p, np.shape(grid)[-1])), groups=1)


@statistic("rank_tests.histogram", adds_over="rows")
def histogram(rows: Matrix, *, edges: Array) -> Cells:
    """Count the two classes of a site in bins; `edges` (p, bins + 1) ascend in every column."""
    return _count(rows, np.arange(rows.x.shape[1]), edges, groups=2)


@statistic("rank_tests.split", adds_over="rows")
def split(rows: Matrix, *, columns: Counts, edges: Array) -> Cells:
    """Count the two classes of a site in the pieces of some cells.

    Parameters
    ----------
    columns : (m,)
        Column of each cell.
    edges : (m, pieces + 1)
        Ascending; equal edges leave a piece empty.
    """
    return _count(rows, columns, edges, groups=2)


def _count(rows: Matrix, columns: Counts, edges: Array, groups: int) -> Cells:
    group, pieces = group_codes(rows, groups), edges.shape[1] - 1
    counts = np.zeros((groups, len(columns), pieces), dtype=np.int64)
    for i, (column, of_column) in enumerate(zip(columns.tolist(), edges, strict=True)):
        piece = np.searchsorted(of_column, rows.x[:, column], side="right") - 1  # NaN comes after the last edge
        inside = (piece >= 0) & (piece < pieces) & (group >= 0) & (group < groups)
        places = group[inside] * pieces + piece[inside]
        counts[:, i] = np.bincount(places, minlength=groups * pieces).reshape(groups, pieces)
    return Cells(counts)


# --- at the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class RankScreen:
    """Features that a rank test keeps, and what is known of all; arrays are (p,) or, as bounds, (2, p)."""

    kept: Counts  # ascending
    auc: Array  # (2, p): at least, at most
    p: Array  # (2, p): at least, at most; of a feature that was not split, as close as the bins tell
    undecided: int  # features that had to be split


def screen(
    federation: Federation,
    columns: int,
    p_threshold: float,
    *,
    test: Test = "mann_whitney",
    keep_at_most: int | None = None,
    centre: Array | None = None,
    scale: Array | None = None,
    fill: Array | None = None,
) -> RankScreen:
    """Columns of `Matrix` rows with p < `p_threshold`, at most `keep_at_most` of them. Two sums, and some to refine.

    Of too many, those with the largest test statistic stay (``"mann_whitney"``) or those with the largest |AUC - 1/2|
    (``"auc"``; the two differ where ties do); of equal ones the first.

    Parameters
    ----------
    centre, scale, fill : (p,), optional
        What standardised the columns, x = (recorded - centre) / scale, and what filled their gaps: values that many
        patients may share are looked for among the recorded ones.
    """
    recorded = _Recorded(
        centre=np.zeros(columns) if centre is None else centre,
        scale=np.ones(columns) if scale is None else scale,
        fill=np.zeros(columns) if fill is None else fill,
    )
    found = _binned(federation, columns)
    ever_open = np.zeros(columns, dtype=bool)
    while True:
        bounds = bounds_of(found, columns)
        strength = bounds.z if test == "mann_whitney" else bounds.distance
        sure, possible = _decided(bounds.p, strength, p_threshold, keep_at_most)
        undecided = possible & ~sure
        chosen = _to_split(found, undecided, _closest(bounds.p, p_threshold, undecided))
        if not chosen.any():
            break
        ever_open |= undecided
        found = _refined(federation, found, chosen, recorded)
    # what is still undecided is exactly known and exactly equal: by column order, as a stable sort of the pooled values
    kept = np.flatnonzero(sure | (possible & (bounds.p[0] < p_threshold)))
    order = kept[np.lexsort((kept, -strength[0][kept]))][:keep_at_most]
    return RankScreen(kept=np.sort(order), auc=bounds.auc, p=bounds.p, undecided=int(ever_open.sum()))


def bins(occupied: Counts, most: int) -> Array:
    """Edges (p, bins + 1) of about equally full bins, from counts (p, cells) on `GRID`; the outer ones are open."""
    patients = int(occupied.sum(axis=1).max(initial=0))
    number = int(np.clip(patients // PATIENTS_A_BIN, 2, most))
    below = np.cumsum(occupied, axis=1)[:, :-1] / np.maximum(occupied.sum(axis=1, keepdims=True), 1)
    wanted = np.arange(1, number) / number
    inner = np.array([np.interp(wanted, share, GRID[1:-1]) for share in below]).reshape(len(occupied), number - 1)
    ends = np.full((len(occupied), 1), np.inf)
    return np.hstack([-ends, inner, ends])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recorded:
    """How a standardised column was made of what was recorded."""

    centre: Array
    scale: Array
    fill: Array

    def standardised(self, values: Array, columns: Counts) -> Array:
        """The very doubles that the sites make of these values (views.design)."""
        return (values - self.centre[columns]) / self.scale[columns]

    def filled(self, columns: Counts) -> Array:
        """What fills the gaps of some columns, standardised."""
        return self.standardised(self.fill[columns], columns)

    def roundest(self, columns: Counts, low: Array, high: Array) -> Array:
        """Recorded value with fewest digits in each cell [low, high), standardised."""
        ends = np.stack([low, high]).clip(-1e150, 1e150) * self.scale[columns] + self.centre[columns]
        a, b = np.nan_to_num(ends)
        negative = b < 0
        magnitude = shortest_decimal(np.where(negative, -b, a).clip(0), np.where(negative, -a, b).clip(0))
        return self.standardised(np.where((a <= 0) & (b >= 0), 0.0, np.where(negative, -magnitude, magnitude)), columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """Cells that hold patients, of all columns, by column and value; arrays are (cells,)."""

    column: Counts
    low: Array
    high: Array
    zeros: Counts
    ones: Counts

    @property
    def open(self) -> NDArray[np.bool_]:
        """Whether a cell may hold different values: it has two patients, and room for two doubles."""
        return (self.zeros + self.ones > 1) & (_code(self.high) - _code(self.low) > 1)

    def take(self, which: NDArray[np.bool_]) -> "_Found":
        return _Found(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bounds:
    """What the cells allow, (2, p): at least, at most."""

    distance: Array  # of U from the middle
    z: Array
    p: Array
    auc: Array


def _binned(federation: Federation, columns: int) -> _Found:
    edges = bins(federation.sum(occupancy, grid=GRID).counts[0], MOST_BINS)
    return cells_held(np.arange(columns), edges, federation.sum(histogram, edges=edges).counts)


def cells_held(columns: Counts, edges: Array, counts: Counts) -> _Found:
    """Cells that hold somebody, of `columns` (m,) with `edges` (m, k + 1) and `counts` (2, m, k)."""
    row, piece = np.nonzero(counts.sum(axis=0))
    return _Found(
        column=columns[row],
        low=edges[row, piece],
        high=edges[row, piece + 1],
        zeros=counts[0][row, piece],
        ones=counts[1][row, piece],
    )


def bounds_of(found: _Found, columns: int) -> _Bounds:
    """What the cells of some columns allow of their tests."""

    def of_columns(values: Array | Counts) -> Array:
        return np.bincount(found.column, weights=values, minlength=columns).astype(np.float64)

    zeros, ones = of_columns(found.zeros), of_columns(found.ones)
    starts = np.concatenate([[0.0], np.cumsum(zeros)[:-1]])
    below = np.cumsum(found.zeros) - found.zeros - starts[found.column]  # patients of class 0 in lower cells
    pairs, held = found.zeros * found.ones, (found.zeros + found.ones).astype(np.float64)
    sure = of_columns(found.ones * below + np.where(found.open, 0.0, pairs / 2))
    u = np.stack([sure, sure + of_columns(np.where(found.open, pairs, 0))])
    tied = of_columns(np.where(found.open, 0.0, held**3 - held))
    ties = np.stack([tied, tied + of_columns(np.where(found.open, held**3 - held, 0.0))])
    n, middle = zeros + ones, zeros * ones / 2
    away = u - middle
    most = np.abs(away).max(axis=0)
    least = np.where((away[0] <= 0) & (away[1] >= 0), 0.0, np.abs(away).min(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):  # a class is empty, or all are tied: no test
        spread = np.sqrt((zeros * ones / 12 * (n + 1 - ties / (n * (n - 1)))).clip(0))
        z = np.stack([least - 0.5, most - 0.5]) / np.where(np.stack([least, most]) > 0.5, spread, spread[::-1])
        auc = u / (zeros * ones)
    z = np.where(np.isnan(z) | (zeros * ones == 0), -np.inf, z)
    # a smaller spread makes a positive z larger: the least z goes with the fewest ties
    p = (2 * stats.norm.sf(z[::-1])).clip(0, 1)
    return _Bounds(distance=np.stack([least, most]), z=z, p=p, auc=np.nan_to_num(auc, nan=0.5))


def _decided(
    p: Array, strength: Array, threshold: float, keep_at_most: int | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Columns that are kept whatever the open cells hold, and columns that may be kept, (p,) each."""
    passes, may_pass = p[1] < threshold, p[0] < threshold
    most = len(passes) if keep_at_most is None else keep_at_most
    # a column is sure of its place if fewer than `most` others could be as strong; it has none if `most` are stronger
    highest = np.sort(np.where(may_pass, strength[1], -np.inf))
    rivals = len(highest) - np.searchsorted(highest, strength[0], side="left") - may_pass
    lowest = np.sort(np.where(passes, strength[0], -np.inf))
    stronger = len(lowest) - np.searchsorted(lowest, strength[1], side="right")
    return passes & (rivals < most), may_pass & (stronger < most)


def _closest(p: Array, threshold: float, undecided: NDArray[np.bool_]) -> Counts:
    """The undecided columns, those first whose bounds lie closest about the threshold."""
    away = np.abs(np.sqrt(p[0] * p[1]) - threshold)
    return np.argsort(np.where(undecided, away, np.inf), kind="stable")[: int(undecided.sum())]


def _to_split(found: _Found, undecided: NDArray[np.bool_], closest: Counts) -> NDArray[np.bool_]:
    """Cells to split next: open ones of undecided columns that hold both classes; where none is left, the others.

    Of at most one column for every four patients at a time.
    """
    patients = int((found.zeros + found.ones)[found.column == 0].sum())
    both = (found.zeros > 0) & (found.ones > 0)
    for kind in (both, ~both):
        useful = found.open & undecided[found.column] & kind
        wanted = np.isin(closest, found.column[useful])
        now = closest[wanted][: max(patients // PATIENTS_A_COLUMN, 1)]
        if len(now):
            places = np.flatnonzero(useful & np.isin(found.column, now))[:MOST_CELLS]
            return np.isin(np.arange(len(useful)), places)
    return np.zeros(len(found.column), dtype=bool)


def even_pieces(cells: int) -> int:
    """Into how many even pieces each of some cells is cut."""
    return int(np.clip(SPLIT_NUMBERS // (2 * cells), LEAST_PIECES, MOST_PIECES))


def _refined(federation: Federation, found: _Found, chosen: NDArray[np.bool_], recorded: _Recorded) -> _Found:
    """The cells with the chosen ones replaced by their pieces. One sum."""
    old = found.take(chosen)
    pieces = even_pieces(len(old.column))
    low, high = _code(old.low), _code(old.high)
    width = (high - low).astype(np.float64)
    # where many patients may share one value, it is made a piece of its own
    common = recorded.roundest(old.column, old.low, old.high), recorded.filled(old.column)
    codes = _code(np.stack(common))
    marks = np.concatenate([codes, codes + np.uint64(1)])
    even = low + (width * (np.arange(pieces + 1)[:, None] / pieces)).astype(np.uint64)
    edges = np.sort(np.concatenate([even[:-1], marks.clip(low, high), high[None]]).clip(low, high), axis=0).T
    values = _value(edges)
    values[:, 0], values[:, -1] = old.low, old.high  # infinite ones stay so
    new = cells_held(old.column, values, federation.sum(split, columns=old.column, edges=values).counts)
    rest = found.take(~chosen)
    joined = _Found(
        **{field.name: np.concatenate([getattr(rest, field.name), getattr(new, field.name)]) for field in fields(new)}
    )
    order = np.lexsort((joined.low, joined.column))
    return _Found(**{field.name: getattr(joined, field.name)[order] for field in fields(joined)})


def _code(x: Array) -> NDArray[np.uint64]:
    """Integers that sort as the doubles do and leave none out between neighbours."""
    bits = (np.asarray(x) + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _value(code: NDArray[np.uint64]) -> Array:
    """Undo `_code`."""
    bits = np.where(code & _SIGN, code ^ _SIGN, ~code)
    return np.ascontiguousarray(bits).view(np.float64)
