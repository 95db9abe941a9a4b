"""Layout: which arrays one sum carries, and how they lie in the buffer that is masked.

A buffer is a uint64 lane (counts ``i8`` and fixed-point numbers ``f8``) and after it a uint32 lane (network weights
``w4``). Each lane that is used ends with four sentinel words of value 1: a right total of S ends with four words |S|.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common import fixed_point
from cohortium.common.errors import Overflow, SumRefused, SumVoid, WireError

SENTINELS = 4
DTYPE = {"i8": np.dtype(np.int64), "f8": np.dtype(np.float64), "w4": np.dtype(np.float32)}
_BITS = {
    "i8": range(1),
    "f8": range(fixed_point.LEAST_BITS, fixed_point.MOST_BITS + 1),
    "w4": range(fixed_point.WEIGHT_BITS - 64, fixed_point.WEIGHT_BITS + 65),
}
_MOST_WORDS = 1 << 32

Lanes = tuple[NDArray[np.uint64], NDArray[np.uint32]]


class Entry(NamedTuple):
    """One array of a sum.

    kind : ``i8`` exact counts (int64), ``f8`` fixed-point numbers (float64), ``w4`` network weights (float32);
    length : number of elements; bits : fraction bits, 0 for counts.
    """

    kind: str
    length: int
    bits: int


@dataclass(frozen=True)
class Layout:
    """The arrays of one sum, in order."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, arrays: Sequence[NDArray[Any]], *, bound: float, sites: int) -> "Layout":
        """Layout for arrays shaped and typed as these, whose floats are at most `bound` in magnitude at each site."""
        kinds = {dtype: kind for kind, dtype in DTYPE.items()}
        bits = {
            "i8": lambda: 0,
            "f8": lambda: fixed_point.fraction_bits(bound, sites),
            "w4": lambda: fixed_point.weight_bits(bound),
        }
        entries = []
        for array in arrays:
            if array.dtype not in kinds:
                raise TypeError(f"a sum takes int64, float64 and float32 arrays, not {array.dtype}")
            kind = kinds[array.dtype]
            entries.append(Entry(kind, array.size, bits[kind]()))
        return cls(tuple(entries))

    @classmethod
    def read(cls, plain: Any) -> "Layout":
        """Undo `plain`; what comes from the wire is checked."""
        try:
            entries = tuple(Entry(*entry) for entry in plain)
        except TypeError as broken:
            raise WireError("the layout of a sum is a list of [kind, length, fraction bits]") from broken
        for kind, length, bits in entries:
            shaped = isinstance(kind, str) and type(length) is int and type(bits) is int
            if not shaped or kind not in _BITS or length < 0 or bits not in _BITS[kind]:
                raise WireError("the layout of a sum has an array of unknown kind, negative length or too few bits")
        if not entries or sum(entry.length for entry in entries) > _MOST_WORDS:
            raise WireError("the layout of a sum is empty or too large")
        return cls(entries)

    def plain(self) -> list[list[str | int]]:
        """Lists of ``[kind, length, bits]``, as they travel."""
        return [list(entry) for entry in self.entries]

    @property
    def words(self) -> tuple[int, int]:
        """Words of the uint64 and of the uint32 lane, sentinels included."""
        wide = [entry.length for entry in self.entries if entry.kind != "w4"]
        narrow = [entry.length for entry in self.entries if entry.kind == "w4"]
        return sum(wide) + SENTINELS * bool(wide), sum(narrow) + SENTINELS * bool(narrow)

    @property
    def nbytes(self) -> int:
        """Size of the buffer."""
        wide, narrow = self.words
        return 8 * wide + 4 * narrow

    def lanes(self, buffer: NDArray[np.uint8]) -> Lanes:
        """The two lanes of a buffer, as views."""
        cut = 8 * self.words[0]
        return buffer[:cut].view("<u8"), buffer[cut:].view("<u4")

    def encode(self, arrays: Sequence[NDArray[Any]], *, sites: int, what: str) -> NDArray[np.uint8]:
        """A site's buffer: its arrays as integers, then the sentinels.

        Raises
        ------
        SumRefused
            The arrays are not those of this layout, or an element is not finite.
        Overflow
            An element does not fit.
        """
        if len(arrays) != len(self.entries):
            raise SumRefused(what, f"the statistic does not give the {len(self.entries)} arrays that were asked for")
        for number, (entry, array) in enumerate(zip(self.entries, arrays, strict=True), 1):
            if array.dtype != DTYPE[entry.kind] or array.size != entry.length:
                # the size that was found may tell of patients: only the expected one is named
                asked = f"{entry.length} elements of {DTYPE[entry.kind]}"
                raise SumRefused(f"{what}, array {number}", f"is not the {asked} that were asked for")
        buffer = np.empty(self.nbytes, np.uint8)
        lanes = self.lanes(buffer)
        for number, (part, entry, array) in enumerate(zip(self._parts(lanes), self.entries, arrays, strict=True), 1):
            try:
                fixed_point.encode_into(part, array, entry.bits, sites, f"{what}, array {number}")
            except Overflow as overflow:
                overflow.array = number - 1
                raise
        for lane in lanes:
            lane[-SENTINELS:] = 1
        return buffer

    def decode(self, buffer: NDArray[np.uint8], *, sites: int) -> list[NDArray[Any]]:
        """Totals over `sites` sites: flat arrays of the kinds that went in.

        Raises
        ------
        SumVoid
            The sentinels or the spare bits say that this is not the total of so many sites.
        """
        lanes = self.lanes(buffer)
        for lane in lanes:
            if (lane[-SENTINELS:] != sites).any():
                raise SumVoid("the total does not end as it must: the sites' masks do not cancel; it is discarded")
        return [self._decoded(part, entry, sites) for part, entry in zip(self._parts(lanes), self.entries, strict=True)]

    @staticmethod
    def _decoded(part: NDArray[Any], entry: Entry, sites: int) -> NDArray[Any]:
        signed = part.view(np.int32 if entry.kind == "w4" else np.int64)
        most = sites * (fixed_point.weight_limit(sites) if entry.kind == "w4" else fixed_point.limit(sites))
        if entry.length and not (-most <= signed.min().item() and signed.max().item() <= most):
            raise SumVoid("the total is larger than the sites' numbers can be; it is discarded")
        if entry.kind == "i8":
            return signed.copy()
        decode = fixed_point.decode_weights if entry.kind == "w4" else fixed_point.decode
        return decode(part, entry.bits)

    def _parts(self, lanes: Lanes) -> Iterator[NDArray[Any]]:
        """The piece of its lane that belongs to each entry."""
        used = [0, 0]
        for entry in self.entries:
            which = int(entry.kind == "w4")
            yield lanes[which][used[which] : used[which] + entry.length]
            used[which] += entry.length
