"""Patients: a site's usable rows in the study's names, units and codes, and why the others are not usable.

A row is judged in a fixed order (identity, part, endpoints, variables) and excluded for the first reason found; what is
wrong with the file rather than with a row is a SiteError (local_table.py).
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cohortium.common.cohort import assign_folds, assign_parts, site_offset
from cohortium.common.study import Study
from cohortium.common.study_data import BinaryEndpoint, ContinuousEndpoint, SurvivalEndpoint, Variable, level_text
from cohortium.common.table import Table
from cohortium.sites.flow import Exclusion, Flow
from cohortium.sites.local_table import Texts, read_local_table
from cohortium.sites.site_file import Site

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Patients:
    """A site's usable patients.

    Parameters
    ----------
    site : str
    frame : DataFrame
        ``patient_id``, ``part``, then float64 columns named as in `common.table`; NaN = missing.
    exclusions : tuple of Exclusion
    """

    site: str
    frame: pd.DataFrame
    exclusions: tuple[Exclusion, ...]

    @property
    def flow(self) -> Flow:
        """Given, excluded by reason, used."""
        return Flow.of(len(self.frame), self.exclusions)

    @property
    def counts_by_part(self) -> dict[str, int]:
        """Usable patients in each part that has any."""
        return {str(part): int(n) for part, n in self.frame["part"].value_counts(sort=False).sort_index().items()}

    def without(self, exclusions: Iterable[Exclusion], study: Study) -> "Patients":
        """These patients less some found unusable later (an image, say); folds are dealt anew over who remains."""
        exclusions = tuple(exclusions)
        gone = [exclusion.patient_id for exclusion in exclusions]
        frame = self.frame.loc[~self.frame["patient_id"].isin(gone)].reset_index(drop=True)
        return Patients(self.site, _with_folds(frame, study, self.site), (*self.exclusions, *exclusions))

    def table(self) -> Table:
        """The same as the Table that local halves see."""
        names = [name for name in self.frame.columns if name not in ("patient_id", "part")]
        return Table(
            site=self.site,
            patient_id=self.frame["patient_id"].to_numpy(dtype=np.str_),
            part=self.frame["part"].to_numpy(dtype=np.str_),
            columns={name: self.frame[name].to_numpy(dtype=np.float64) for name in names},
        )


def read_patients(study: Study, site: Site) -> Patients:
    """Read and judge every row of a site's table; the usable ones are sorted by patient_id.

    Raises
    ------
    SiteError
        The site is not in the study, or its table cannot be read as described; no row is excluded for that.
    """
    split = study.split
    part_column = split.part_column.column if split.part_column and site.name in split.train else None
    endpoint_columns = [column for endpoint in study.endpoint.values() for column in endpoint.columns]
    names = [*study.variables, *endpoint_columns, *([part_column] if part_column else [])]
    local = read_local_table(site, names)

    judge = _Judge(local["patient_id"])
    judge.identities()
    parts = assign_parts(study, site.name, judge.ids, local[part_column] if part_column else None)
    if part_column:
        judge.exclude(local[part_column] == "", f"{part_column} is missing")
        judge.exclude(parts == "", f"{part_column} names no part of the study", local[part_column])
    columns: dict[str, Array] = {}
    for name, endpoint in study.endpoint.items():
        if isinstance(endpoint, BinaryEndpoint):
            columns[f"endpoint.{name}"] = _binary_outcome(judge, endpoint, local)
        elif isinstance(endpoint, ContinuousEndpoint):
            columns[f"endpoint.{name}"] = _number_outcome(judge, endpoint, local, site.data.decimal)
        else:
            stem = f"endpoint.{name}"
            columns[f"{stem}.time"], columns[f"{stem}.event"], competing = _survival_outcome(
                judge, endpoint, local, site.data.decimal
            )
            if endpoint.competing:
                columns[f"{stem}.competing"] = competing
    outcomes = columns
    columns = {v.name: _variable(judge, v, local[v.name], site.data.decimal) for v in study.variable} | outcomes
    usable = judge.usable
    frame = pd.DataFrame({"patient_id": judge.ids, "part": parts, **columns}).loc[usable]
    # Sums of floats depend on the order of their terms: with this one, the file's changes not even the last digit
    frame = frame.sort_values("patient_id", ignore_index=True)
    return Patients(site.name, _with_folds(frame, study, site.name), judge.exclusions())


class Column(NamedTuple):
    """A study variable as a site gives it; `problems` counts values that exclude or cannot be used, by reason."""

    name: str
    local: str
    kind: str
    unit: str
    given: int
    missing: int
    problems: dict[str, int]


def dictionary(study: Study, site: Site) -> list[Column]:
    """Every variable of the study in the site's table, each judged by itself over all rows.

    Raises
    ------
    SiteError
        The table cannot be read as described.
    """
    local = read_local_table(site, list(study.variables))
    columns = []
    for variable in study.variable:
        texts = local[variable.name]
        judge = _Judge(local["patient_id"])
        _variable(judge, variable, texts, site.data.decimal)
        missing = int((texts == "").sum())
        problems = Counter(exclusion.reason for exclusion in judge.exclusions())
        local_name = site.data.columns.get(variable.name, variable.name)
        given = len(texts) - missing
        columns.append(Column(variable.name, local_name, variable.kind, variable.unit, given, missing, problems))
    return columns


class _Judge:
    """Keeps the first reason for which each row is excluded."""

    def __init__(self, ids: Texts) -> None:
        self.ids = ids
        self._reason = np.full(len(ids), "", dtype=object)
        self._detail = np.full(len(ids), "", dtype=object)

    @property
    def usable(self) -> Rows:
        return self._reason == ""

    def identities(self) -> None:
        self.exclude(self.ids == "", "patient_id is missing")
        self.exclude(pd.Series(self.ids).duplicated(keep=False).to_numpy(), "patient is given more than once")

    def exclude(self, rows: Rows, reason: str, values: Texts | None = None) -> None:
        """Exclude the usable ones of `rows`; `values` are shown at the site only."""
        new = rows & self.usable
        self._reason[new] = reason
        if values is not None:
            self._detail[new] = values[new]

    def exclusions(self) -> tuple[Exclusion, ...]:
        rows = np.flatnonzero(~self.usable)
        return tuple(Exclusion(str(self.ids[i]), str(self._reason[i]), str(self._detail[i])) for i in rows)


def _variable(judge: _Judge, variable: Variable, texts: Texts, decimal: str) -> Array:
    name = variable.name
    if variable.missing == "refuse":
        judge.exclude(texts == "", f"{name} is missing")
    if variable.kind != "continuous":
        values = _looked_up(texts, {level: float(i) for level, i in variable.level_index.items()})
        judge.exclude(np.isnan(values) & (texts != ""), f"unknown level of {name}", texts)
        return values
    return _measured(judge, name, texts, decimal, variable.range)


def _measured(judge: _Judge, name: str, texts: Texts, decimal: str, bounds: tuple[float, float] | None) -> Array:
    """Numbers within the declared bounds, where there are any."""
    values = _numbers(judge, name, texts, decimal)
    if bounds is not None:
        low, high = bounds
        judge.exclude((values < low) | (values > high), f"{name} out of range", texts)
    return values


def _number_outcome(judge: _Judge, endpoint: ContinuousEndpoint, local: dict[str, Texts], decimal: str) -> Array:
    judge.exclude(local[endpoint.column] == "", f"{endpoint.column} is missing")
    return _measured(judge, endpoint.column, local[endpoint.column], decimal, endpoint.range)


def _binary_outcome(judge: _Judge, endpoint: BinaryEndpoint, local: dict[str, Texts]) -> Array:
    """1 for the positive value, 0 for the negative one (see `BinaryEndpoint`)."""
    texts = local[endpoint.column]
    positive = level_text(endpoint.positive)
    negative = endpoint.negative if endpoint.negative is not None else (0 if positive == "1" else None)
    judge.exclude(texts == "", f"{endpoint.column} is missing")
    if negative is None:
        values = _looked_up(texts, {positive: 1.0}, default=0.0)
    else:
        values = _looked_up(texts, {positive: 1.0, level_text(negative): 0.0})
    judge.exclude(np.isnan(values), f"unknown value of {endpoint.column}", texts)
    return values


def _survival_outcome(
    judge: _Judge, endpoint: SurvivalEndpoint, local: dict[str, Texts], decimal: str
) -> tuple[Array, Array, Array]:
    """Times, events and competing events, which censor the event. Time 0 without either is kept: it was at risk."""
    for column in endpoint.columns:
        judge.exclude(local[column] == "", f"{column} is missing")
    time = _numbers(judge, endpoint.time, local[endpoint.time], decimal)
    codes = {"0": 0.0, "1": 1.0} | {level_text(code): 2.0 for code in endpoint.competing}
    cause = _looked_up(local[endpoint.event], codes)
    judge.exclude(np.isnan(cause), f"{endpoint.event} is not {' or '.join(codes)}", local[endpoint.event])
    judge.exclude(time < 0, f"{endpoint.time} is negative", local[endpoint.time])
    judge.exclude((time == 0) & (cause > 0), f"event at {endpoint.time} 0", local[endpoint.time])
    known = np.where(np.isnan(cause), np.nan, 0.0)
    return time, known + (cause == 1), known + (cause == 2)


def _looked_up(texts: Texts, table: dict[str, float], default: float = np.nan) -> Array:
    known = {text: table.get(level_text(text), default if text else np.nan) for text in set(texts)}
    return np.array([known[text] for text in texts], dtype=np.float64)


def _numbers(judge: _Judge, name: str, texts: Texts, decimal: str) -> Array:
    """Finite decimal numbers; missing stays NaN, any other text excludes its row."""
    pointed = texts if decimal == "." else [text.replace(",", ".") for text in texts]
    # float() is exactly rounded; pandas.to_numeric gets the last digit of about a third of all numbers wrong
    values = np.array([float(text) if NUMBER.fullmatch(text) else np.nan for text in pointed], dtype=np.float64)
    values[np.isinf(values)] = np.nan  # 1e400
    judge.exclude(np.isnan(values) & (texts != ""), f"{name} is not a number", texts)
    return values


def _with_folds(frame: pd.DataFrame, study: Study, site: str) -> pd.DataFrame:
    """Deal the training patients into the study's folds, by the primary endpoint's class; -1 elsewhere."""
    if study.split.folds is None:
        return frame
    primary = study.study.primary
    outcome = f"endpoint.{primary}" + (".event" if study.outcome_kind == "survival" else "")
    folds = np.full(len(frame), -1.0)
    train = np.asarray(frame["part"]) == "train"
    if train.any():
        ids, classes = np.asarray(frame["patient_id"])[train], np.asarray(frame[outcome])[train]
        if study.outcome_kind == "continuous":  # numbers are no classes: all patients of a site are one
            classes = np.zeros(len(classes))
        folds[train] = assign_folds(study.study.seed, site, site_offset(study, site), ids, classes, study.split.folds)
    return frame.assign(fold=folds)
