"""Matrices: pyradiomics' texture matrices of a region, all from one walk over the pairs of neighbours.

pyradiomics 3.0.1 walks the region anew for every class and voxel by voxel. Here levels are one flat array of bytes with
a voxel of background around the region, so that a neighbour is a constant step away and a direction is one comparison
of two arrays; zones are connected components (cc3d). The counts are the same whole numbers.
"""

from typing import NamedTuple

import cc3d
import numpy as np
from numpy.typing import NDArray

from cohortium.common.errors import CaseError

Counts = NDArray[np.int64]

CHUNK = 1 << 16
"""Voxels whose pairs are counted at once: what fits into a core's cache."""
MOST_LEVELS = 1 << 12
"""Levels of a region: its co-occurrence matrices of 13 directions then fill 1.7 GB."""


class Matrices(NamedTuple):
    """Matrices of one region; rows are the levels that are present, in ascending order.

    Attributes
    ----------
    levels : (n,)
        Which levels are present.
    voxels : (n,)
        Voxels of each level.
    glcm : (n, n, directions)
        Ordered pairs of neighbours, each counted once.
    glrlm : (n, longest run, directions)
    gldm : (n, 27)
        Voxels by how many of their neighbourhood, themselves included, have their level.
    ngtdm : (n,)
        Sum of the differences of voxels from the mean of their neighbours; 0 for one without any.
    glszm : (n, largest zone)
    """

    levels: Counts
    voxels: Counts
    glcm: Counts
    glrlm: Counts
    gldm: Counts
    ngtdm: NDArray[np.float64]
    glszm: Counts


class _Flat(NamedTuple):
    """Ranks of levels (0 outside, 1 to n) as a flat array with background around the region."""

    ranks: NDArray[np.unsignedinteger]
    shape: tuple[int, ...]
    levels: Counts

    @property
    def steps(self) -> tuple[int, int, int]:
        """Elements from a voxel to the next along z, y, x."""
        return self.shape[1] * self.shape[2], self.shape[2], 1


def matrices(levels: Counts, *, flat: bool = False) -> Matrices:
    """All matrices of a region.

    Parameters
    ----------
    levels : (z, y, x)
        Grey levels from 1; 0 outside the region.
    flat : bool
        Neighbours within slices (z) only.

    Raises
    ------
    ValueError
        The region has no two voxels beside each other along any direction.
    CaseError
        ``region has too many grey levels for textures``.
    """
    present = np.flatnonzero(np.bincount(levels.ravel()))
    present = present[present > 0]
    if len(present) > MOST_LEVELS:
        raise CaseError(
            "region has too many grey levels for textures",
            f"{len(present)} of at most {MOST_LEVELS}; choose wider or fewer bins",
        )
    kind = np.uint8 if len(present) < 256 else np.uint32
    rank = np.zeros(int(present[-1]) + 1, dtype=kind)
    rank[present] = np.arange(1, len(present) + 1)
    padded = np.pad(rank[levels], 1)
    region = _Flat(padded.ravel(), padded.shape, present)
    voxels = np.bincount(region.ranks, minlength=len(present) + 1)[1:]
    offsets = _offsets(region, flat=flat)
    if not offsets:
        raise ValueError("a single voxel has no neighbours")
    glcm, glrlm, alike = _neighbours(region, offsets, voxels)
    inside = region.ranks > 0
    gldm = np.bincount(region.ranks[inside] * np.int64(28) + alike[inside], minlength=(len(present) + 1) * 28)
    return Matrices(
        present,
        voxels,
        glcm,
        glrlm,
        gldm.reshape(-1, 28)[1:, 1:],
        _differences(region, inside, flat=flat),
        _zones(padded, len(present), flat=flat),
    )


def _offsets(region: _Flat, *, flat: bool) -> list[tuple[int, int, int]]:
    """Steps (z, y, x) to half of the neighbours; none along an axis on which the region has one voxel only."""
    offsets = [(0, 0, 1), (0, 1, -1), (0, 1, 0), (0, 1, 1)]
    if not flat:
        offsets += [(1, y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    extent = [n - 2 for n in region.shape]
    return [offset for offset in offsets if all(abs(o) < n for o, n in zip(offset, extent, strict=True))]


def _neighbours(
    region: _Flat, offsets: list[tuple[int, int, int]], voxels: Counts
) -> tuple[Counts, Counts, NDArray[np.uint8]]:
    """Pairs and runs by direction, and how many voxels of each one's neighbourhood have its level."""
    ranks = region.ranks
    n = len(voxels)
    inside = ranks > 0
    alike = inside.astype(np.uint8)
    pairs, runs = [], []
    for offset in offsets:
        step = int(np.dot(offset, region.steps))
        here, there = ranks[:-step], ranks[step:]
        same = (here == there) & inside[:-step]
        alike[:-step] += same
        alike[step:] += same
        counts = _pairs(here, there, n)
        pairs.append(counts)
        if counts.any() or _shares_a_line(inside, region.shape, offset):
            runs.append(_runs(ranks, same, step, voxels, counts.diagonal()))
        else:  # as pyradiomics has it, lines of one voxel each hold no runs
            runs.append(np.zeros((1, n), dtype=np.int64))
    longest = max(map(len, runs))
    glrlm = np.stack([np.pad(counts, ((0, longest - len(counts)), (0, 0))).T for counts in runs], axis=2)
    return np.stack(pairs, axis=2), glrlm, alike


def _pairs(here: NDArray, there: NDArray, n: int) -> Counts:
    """How often each level is followed by each, (n, n)."""
    total = np.zeros((n + 1) ** 2, dtype=np.int64)
    for at in range(0, len(here), CHUNK):
        code = here[at : at + CHUNK].astype(np.int64)
        code *= n + 1
        code += there[at : at + CHUNK]
        total += np.bincount(code, minlength=len(total))
    return total.reshape(n + 1, n + 1)[1:, 1:]


def _runs(ranks: NDArray, same: NDArray[np.bool_], step: int, voxels: Counts, continued: Counts) -> Counts:
    """Runs by length (rows, from 1) and level: those of two voxels or more are followed, the rest are single.

    `continued` voxels of each level have a successor of the same level, so ``voxels - continued`` end a run.
    """
    starts = same.copy()
    starts[step:] &= ~same[:-step]
    at = np.flatnonzero(starts)
    level = ranks[at]
    n = len(voxels)
    found = [voxels - continued - np.bincount(level, minlength=n + 1)[1:]]
    at += step
    while len(at):
        goes_on = same[at]
        found.append(np.bincount(level[~goes_on], minlength=n + 1)[1:])
        at, level = at[goes_on] + step, level[goes_on]
    return np.stack(found)


def _shares_a_line(inside: NDArray[np.bool_], shape: tuple[int, ...], offset: tuple[int, int, int]) -> bool:
    """Whether any line along `offset` meets the region in two voxels; asked of scattered regions only."""
    at = np.argwhere(inside.reshape(shape))
    first = np.flatnonzero(offset)[0]  # the component that counts steps along a line
    lines = at - at[:, [first]] * np.array(offset)
    return len(np.unique(lines, axis=0)) < len(at)


def _differences(region: _Flat, inside: NDArray[np.bool_], *, flat: bool) -> NDArray[np.float64]:
    """Summed differences of voxels from the mean of their neighbours, by level, (n,)."""
    value = np.concatenate([[0], region.levels]).astype(np.int32)
    values = value[region.ranks]
    steps = region.steps[1:] if flat else region.steps
    total, number = _box_sum(values, steps), _box_sum(inside.astype(np.uint8), steps)
    at = np.flatnonzero(inside & (number > 1))
    own, others = values[at], number[at] - np.uint8(1)
    difference = np.abs(own - (total[at] - own) / others)
    return np.bincount(region.ranks[at], difference, minlength=len(value))[1:].astype(float)


def _box_sum(values: NDArray, steps: tuple[int, ...]) -> NDArray:
    """Sum over a voxel and its neighbours along all `steps`."""
    for step in steps:
        total = values.copy()
        total[step:] += values[:-step]
        total[:-step] += values[step:]
        values = total
    return values


def _zones(ranks: NDArray, n: int, *, flat: bool) -> Counts:
    """Zones by level and size, (n, largest)."""
    inside = ranks > 0
    zone = connected(ranks, flat=flat)[inside]
    size = np.bincount(zone)[1:]
    level = np.zeros(len(size) + 1, dtype=np.int64)
    level[zone] = ranks[inside]
    largest = int(size.max(initial=1))
    return np.bincount((level[1:] - 1) * largest + size - 1, minlength=n * largest).reshape(n, largest)


def connected(levels: NDArray, *, flat: bool) -> NDArray[np.unsignedinteger]:
    """Number (1, 2, ...) of the zone of each voxel: touching voxels of one level; 0 where the level is 0.

    Parameters
    ----------
    levels : (z, y, x)
    flat : bool
        Voxels of different slices (z) do not touch.
    """
    if not flat:
        return cc3d.connected_components(levels, connectivity=26)
    apart = np.zeros((2 * len(levels), *levels.shape[1:]), dtype=levels.dtype)
    apart[::2] = levels
    return cc3d.connected_components(apart, connectivity=26)[::2]
