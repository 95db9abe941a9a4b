"""Patients: values of new patients as they are typed or come in a table, judged as a hospital judges its own."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cohortium.client.predict.saved import Needs
from cohortium.common.declared_files import nearest
from cohortium.common.errors import ModelError
from cohortium.common.study import Study
from cohortium.common.study_data import Variable, level_text
from cohortium.sites.patients import NUMBER
from cohortium.sites.site_file import MISSING_CODES

ID = "patient_id"
IMAGE, MASK, ROI = "image.", "mask.", "roi."
"""Columns of paths: image.ct, mask.tumour or mask.ct/tumour; and which region of the mask's file it is: roi.tumour."""


class NewPatient(NamedTuple):
    """One patient as given; texts by column."""

    patient_id: str
    given: Mapping[str, str]
    folder: Path  # where relative paths start


def assignments(pairs: Iterable[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` of a repeated option, by name."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ModelError(f"{option} {pair}: should be NAME=VALUE")
        if name.strip() in found:
            raise ModelError(f"{option} {pair}: {name.strip()} is given twice; keep one")
        found[name.strip()] = value.strip()
    return found


def paths(given: Mapping[str, str], prefix: str, study: Study) -> dict[str, str]:
    """Paths of a repeated option as columns of a table; their names must be the study's."""
    masks = [*study.region, *(f"{image}/{region}" for image in study.image for region in study.region)]
    known = list(study.image) if prefix == IMAGE else masks
    for name in given:
        if name not in known:
            option = f"--{prefix.rstrip('.')} {name}"
            raise ModelError(
                f"{option}: the study has no such {'image' if prefix == IMAGE else 'region'}; {nearest(name, known)}"
            )
    return {prefix + name: str(Path(path).absolute()) for name, path in given.items()}


def typed(values: Mapping[str, str], study: Study, needs: Needs) -> NewPatient:
    """The patient that ``--set`` describes; a variable that is not named is missing."""
    known = [*study.variables, *(column for columns in needs.features.values() for column in columns)]
    for name in values:
        if name not in known:
            raise ModelError(f"--set {name}: the study has no such variable; {nearest(name, study.variables)}")
    return NewPatient("1", values, Path())


def in_table(path: Path, needs: Needs) -> list[NewPatient]:
    """Every row of a CSV table; columns that the model does not look at are left alone.

    Raises
    ------
    ModelError
        The table cannot be read, or lacks a variable that the model looks at (its cells may be empty).
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(row)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as broken:
        why = broken.strerror if isinstance(broken, OSError) else "not a CSV table in UTF-8"
        raise ModelError(f"--patients {path}: cannot be read ({why}); give a CSV table with a header") from None
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ModelError(f"--patients {path}: column {twice[0]!r} is there twice; rename one")
    if lacking := [name for name in needs.variables if name not in header]:
        told = "; ".join(f"{name} ({nearest(name, header)})" for name in lacking)
        raise ModelError(f"--patients {path}: the model looks at variables that are no column of it: {told}")
    if not rows:
        raise ModelError(f"--patients {path}: holds no row; give a row for each patient")
    patients = []
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ModelError(f"--patients {path}: row {number} has {len(row)} cells, the header {len(header)}")
        given = dict(zip(header, row, strict=True))
        patients.append(NewPatient(given.get(ID) or str(number), given, path.parent))
    if len({patient.patient_id for patient in patients}) < len(patients):
        raise ModelError(f"--patients {path}: a {ID} is there twice; each row is one patient")
    return patients


def values_of(patient: NewPatient, study: Study, needs: Needs) -> tuple[dict[str, float], list[str]]:
    """Numbers of a patient's variables (NaN = missing, to be filled as the study says), and why it cannot be scored."""
    values, wrong = {}, []
    for name in needs.variables:
        try:
            values[name] = _value(study.variables[name], patient.given.get(name, ""))
        except ValueError as mistake:
            wrong.append(str(mistake))
    return values, wrong


def features_of(patient: NewPatient, columns: Sequence[str]) -> dict[str, float] | None:
    """A patient's measured features, where all of these columns are given as numbers; None where they are not."""
    texts = [patient.given.get(column, "") for column in columns]
    if not all(NUMBER.fullmatch(text) for text in texts):
        return None
    return dict(zip(columns, map(float, texts), strict=True))


def _value(variable: Variable, text: str) -> float:
    """A number, or the position of a level.

    Raises
    ------
    ValueError
        Says what is wrong with the value, and the remedy.
    """
    name = variable.name
    if text.strip() in MISSING_CODES:
        if variable.missing == "refuse":
            raise ValueError(f"{name} is missing, and the study fills no gaps of it; give a value")
        return np.nan
    if variable.kind != "continuous":
        level = level_text(text)
        if level not in variable.level_index:
            raise ValueError(f"{name} = {text!r} is no level of it; {nearest(level, variable.level_index)}")
        return float(variable.level_index[level])
    if not NUMBER.fullmatch(text) or not np.isfinite(value := float(text)):
        raise ValueError(f"{name} = {text!r} is not a number")
    low, high = variable.range or (-np.inf, np.inf)
    if not low <= value <= high:
        raise ValueError(f"{name} = {text} outside {low:g}..{high:g}, for which the study was made; check the value")
    return value
