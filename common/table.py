"""Table: a site's prepared patients, as every local half sees them.

One Parquet file a site, written by `cohortium site prepare` and read by everything that answers a message. Columns:
``patient_id``; study variables by name (float64, NaN = missing; categorical = index into the study's levels);
``endpoint.NAME`` (0/1), or ``endpoint.NAME.time`` and ``endpoint.NAME.event``; ``part`` (text) and ``fold`` (int);
features as ``features.SET/IMAGE/REGION/FEATURE``, and ``perturbed.NUMBER.SET/IMAGE/REGION/FEATURE`` as measured with
another contour, which the agreement of contours looks at and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def perturbed(feature: str, number: int) -> str:
    """Name of the column of a feature as measured with the contour `number` (1, 2, ...) in place of the site's own.

    >>> perturbed("features.r/ct/tumour/original_firstorder_Mean", 2)
    'perturbed.2.r/ct/tumour/original_firstorder_Mean'
    """
    return f"perturbed.{number}.{feature.removeprefix('features.')}"


@dataclass(frozen=True)
class Table:
    """A site's patients; every array has one entry a patient, in the order of patient_id.

    Parameters
    ----------
    site : str
    patient_id : (n,) array of str
    part : (n,) array of str
        ``train``, ``internal`` or ``external``.
    columns : mapping of name to (n,) float64
        NaN = missing.
    """

    site: str
    patient_id: NDArray[np.str_]
    part: NDArray[np.str_]
    columns: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.patient_id)

    def take(self, rows: NDArray[np.bool_]) -> "Table":
        """The patients where `rows` is true."""
        return Table(self.site, self.patient_id[rows], self.part[rows], {k: v[rows] for k, v in self.columns.items()})

    def matrix(self, names: list[str] | tuple[str, ...]) -> NDArray[np.float64]:
        """Columns side by side, (n, len(names))."""
        if not names:
            return np.empty((len(self), 0))
        return np.column_stack([self.columns[name] for name in names])

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all feature columns, in file order."""
        return tuple(name for name in self.columns if name.startswith("features."))

    @classmethod
    def empty(cls, names: tuple[str, ...] | list[str]) -> "Table":
        """No patients: what the server runs a local half on to learn the shapes of its sums."""
        text = np.empty(0, dtype=np.str_)
        return cls("", text, text, {name: np.empty(0) for name in names})

    def write(self, path: Path) -> None:
        """Write Parquet, atomically."""
        import pyarrow as pa
        from pyarrow import parquet

        columns = {"patient_id": self.patient_id.tolist(), "part": self.part.tolist(), **self.columns}
        table = pa.table({k: pa.array(v) for k, v in columns.items()}, metadata=None)
        table = table.replace_schema_metadata({"site": self.site})
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        parquet.write_table(table, draft)
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read what `write` wrote."""
        from pyarrow import parquet

        table = parquet.read_table(path, memory_map=False)
        names = [n for n in table.column_names if n not in ("patient_id", "part")]
        return cls(
            site=(table.schema.metadata or {})[b"site"].decode(),
            patient_id=np.array(table["patient_id"].to_pylist(), dtype=np.str_),
            part=np.array(table["part"].to_pylist(), dtype=np.str_),
            columns={n: table[n].to_numpy().astype(np.float64) for n in names},
        )
