"""Quality report: a page for the site alone that shows its cases: failures, doubts, volumes, outliers and pictures.

Written by ``site check`` and ``site prepare``; nothing in it leaves the site.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from cohortium.common.errors import SiteError
from cohortium.common.table import Table
from cohortium.sites.flow import Exclusion, Flow
from cohortium.sites.patients import Column

FAR = 5.0
"""Robust z beyond which a value is an outlier; 1 in 2 million values of a normal distribution."""
SHOWN_FEATURES = 3
SHEETS = "sheets"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is shown of a patient; `sheet` is a path relative to the page, empty without pictures."""

    patient_id: str
    geometry: dict[str, str] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    findings: Sequence[tuple[str, str, bool]] = ()
    sheet: str = ""


class Outlier(NamedTuple):
    """A patient whose features lie far from the others'."""

    patient_id: str
    features: int  # beyond `FAR`
    farthest: list[tuple[str, float]]  # column, robust z


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from the median in normal-consistent median absolute deviations, a column at a time; NaN stays.

    A column whose deviation is 0 has no scale and gives 0.

    Parameters
    ----------
    values : (n_patients, n_features)

    >>> robust_z(np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])).round(1).ravel().tolist()
    [-1.3, -0.7, 0.0, 0.7, 65.4]
    """
    known = ~np.isnan(values).all(axis=0)
    z = np.full(values.shape, np.nan)
    centred = values[:, known] - np.nanmedian(values[:, known], axis=0)
    # 1.4826 = 1 / (75th percentile of the standard normal distribution)
    scale = 1.4826 * np.nanmedian(np.abs(centred), axis=0)
    z[:, known] = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)
    return z


def outliers(table: Table) -> list[Outlier]:
    """Patients with features beyond `FAR`, those with most first."""
    names = table.feature_names
    if not names or len(table) < 3:
        return []
    far = np.abs(z := robust_z(table.matrix(names))) > FAR
    found = []
    for row in np.flatnonzero(far.any(axis=1)):
        order = np.argsort(-np.where(far[row], np.abs(z[row]), -1), kind="stable")[:SHOWN_FEATURES]
        farthest = [(names[i], float(z[row, i])) for i in order if far[row, i]]
        found.append(Outlier(str(table.patient_id[row]), int(far[row].sum()), farthest))
    return sorted(found, key=lambda patient: -patient.features)


def write_sheet(folder: Path, number: int, sheet: bytes) -> str:
    """Keep a case's contact sheet beside the page; returns its name there (a number: an id may be no file name)."""
    if not sheet:
        return ""
    name = f"{SHEETS}/{number:06d}.png"
    try:
        (folder / SHEETS).mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(sheet)
    except OSError as broken:
        raise SiteError(f"folder {folder}: {broken.strerror}; check its rights and the free space") from broken
    return name


def write_page(
    path: Path,
    *,
    title: str,
    flow: Flow,
    exclusions: Iterable[Exclusion],
    cases: Iterable[Case],
    columns: Sequence[Column] = (),
    found: Sequence[Outlier] = (),
    features: int = 0,
) -> None:
    """Write the page, a case at a time so that its size costs no memory.

    Raises
    ------
    SiteError
        It cannot be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(files("cohortium.client").joinpath("quality.html").read_text(encoding="utf-8"))
    lines: Iterator[str] = page.generate(
        title=title, flow=flow, exclusions=exclusions, cases=cases, columns=columns, outliers=found,
        features=features, far=FAR,
    )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(lines)
    except OSError as broken:
        raise SiteError(f"quality report {path}: {broken.strerror}; check its rights and the free space") from broken
