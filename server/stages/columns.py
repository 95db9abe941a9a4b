"""Columns: the candidate columns of a model at the coordinator, and the recipe that makes a site cook them.

A column is a term of a study variable, one feature of a set, or another model's score. What standardises it (centre,
scale, and the value that fills a gap) was learned from sums over the training patients of one replicate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its public name, the study's name for the whole of it, and where a site takes it from.

    `source` is ``("terms", term, equations that fill it or None)``,
    ``("features", set, index, harmonisation or None)`` or ``("model", digest, stack)``.
    """

    name: str
    variable: str
    source: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns side by side; arrays are (p,)."""

    columns: tuple[Column, ...]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    fill: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Columns":
        """Some of the columns, in the order given."""
        at = np.asarray(indices, dtype=np.int64)
        return Columns(
            columns=tuple(self.columns[i] for i in at),
            centre=self.centre[at],
            scale=self.scale[at],
            fill=self.fill[at],
        )

    def whole_variables(self, indices: Sequence[int] | NDArray[np.int64]) -> list[int]:
        """Indices widened so that a categorical variable is kept whole; in column order."""
        kept = {self.columns[i].variable for i in np.asarray(indices, dtype=np.int64)}
        return [i for i, column in enumerate(self.columns) if column.variable in kept]

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """The columns as blocks of a view (strategies/views.py)."""
        blocks: list[dict[str, Any]] = []
        for key, group in groupby(self.columns, key=_block_key):
            sources = [column.source for column in group]
            if key[0] == "terms":
                chain = {"chain": key[1]} if key[1] else {}
                blocks.append({"terms": [source[1] for source in sources], **chain})
            elif key[0] == "features":
                at = np.array([source[2] for source in sources], dtype=np.int64)
                blocks.append({"features": key[1], "at": at, "harmonise": key[2]})
            else:
                blocks += [{"model": source[1], "stack": source[2]} for source in sources]
        return blocks

    @property
    def recipe(self) -> dict[str, Any]:
        """Blocks and standardisation: the part of a view, or of a fitted model, that makes a design."""
        return {"blocks": self.blocks, "centre": self.centre, "scale": self.scale, "fill": self.fill}


def _block_key(column: Column) -> tuple[Any, ...]:
    kind = column.source[0]
    if kind == "terms":
        return kind, column.source[2]
    return (kind, column.source[1], column.source[3]) if kind == "features" else (kind,)


def joined(parts: Sequence[Columns]) -> Columns:
    """Columns of several parts side by side."""
    return Columns(
        columns=tuple(column for part in parts for column in part.columns),
        centre=np.concatenate([part.centre for part in parts]) if parts else np.empty(0),
        scale=np.concatenate([part.scale for part in parts]) if parts else np.empty(0),
        fill=np.concatenate([part.fill for part in parts]) if parts else np.empty(0),
    )


def varying(columns: Columns) -> Columns:
    """The columns that are not constant over the training patients; a constant one can carry no coefficient."""
    return columns.take(np.flatnonzero(columns.scale > 0))
