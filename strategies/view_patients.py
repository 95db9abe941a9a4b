"""View patients: what a view is cooked from, and which patients of a site's table it is about."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohortium.common import cohort
from cohortium.common.study import Study
from cohortium.common.table import Table

PATIENTS_A_SET = 4
STACK_FOLDS = 5  # folds of out-of-fold stacking where the study has no cross-validation of its own


@dataclass
class Context:
    """What a recipe is cooked from: one site's table, the study, and what the coordinator has published.

    `cache` keeps derived columns for as long as the context lives; it is never written to disk.
    """

    table: Table
    study: Study
    site: str
    objects: Mapping[str, Mapping[str, Any]]
    cache: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """The cached value of `key`, made on first use."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]


def cross_validation_folds(study: Study) -> int:
    """Number of folds that out-of-fold values are made of."""
    return study.split.folds or STACK_FOLDS


def fold_numbers(study: Study, repeat: int = 0) -> range:
    """Numbers that stand for the folds of a repeat of cross-validation; the first one's start at 0."""
    folds = cross_validation_folds(study)
    return range(repeat * folds, (repeat + 1) * folds)


def repeat_of(study: Study, without: Iterable[int]) -> int:
    """The repeat of which a replicate leaves out folds; the first one, 0, where it leaves out none."""
    folds, first_site = cross_validation_folds(study), fold_numbers(study, study.split.repeats).start
    return next((number // folds for number in without if number < first_site), 0)


def too_many_repeats(study: Study, patients: int) -> str:
    """Why so many training patients may not be cut into folds so often; empty where they may.

    A sum over all but a fold is one over a set that is known to whoever knows the patients' ids, and as many sets as
    patients fix each patient's value. Each repeat adds its folds less one to the sets whose sums do not follow from
    those of others.
    """
    sets = 1 + study.split.repeats * (cross_validation_folds(study) - 1)
    if study.split.repeats == 1 or sets <= patients // PATIENTS_A_SET:
        return ""
    return (
        f"repeats = {study.split.repeats} cut {patients} patients into {sets} sets that do not follow from each other, "
        f"and there may be one for every {PATIENTS_A_SET} patients; name fewer repeats or folds"
    )


def folds_of(context: Context, repeat: int = 0) -> NDArray[np.int64]:
    """Number of each patient's fold in a repeat of cross-validation, -1 outside train; (n,)."""

    def assign() -> NDArray[np.int64]:
        train = context.table.part == "train"
        folds = np.full(len(context.table), -1, dtype=np.int64)
        study = context.study
        folds[train] = cohort.assign_folds(
            study.study.seed,
            context.site,
            site_offset(study, context.site),
            context.table.patient_id[train],
            outcome_class(context, study.study.primary)[train],
            cross_validation_folds(study),
            label=f"repeat{repeat + 1}" if repeat else "",
        )
        folds[train] += fold_numbers(study, repeat).start
        return folds

    return context.once(("folds", repeat), assign)


def site_offset(study: Study, site: str) -> int:
    """Place of a site among the sorted training sites; 0 for a site that does not train."""
    names = sorted(study.split.train)
    return names.index(site) if site in names else 0


def left_out_number(study: Study, site: str) -> int:
    """Number that stands for a training site among what a replicate leaves out; those of the folds come before."""
    return fold_numbers(study, study.split.repeats).start + sorted(study.split.train).index(site)


def further_repeats(study: Study) -> list[str]:
    """Names of the repeats of cross-validation after the first: ``"repeat2"`` ..."""
    return [f"repeat{number}" for number in range(2, study.split.repeats + 1)]


def unseen(context: Context, of: str) -> list[tuple[NDArray[np.bool_], tuple[int, ...]]]:
    """Training patients, (n,) each time, and the replicate that has not seen them.

    `of`: ``"out_of_fold"`` (each fold's), ``"repeat2"`` ... (each fold's of a further repeat), ``"left_out_site"``
    (this site's) or ``"final"`` (there is none).
    """
    repeats = ["out_of_fold", *further_repeats(context.study)]
    if of in repeats:
        folds = folds_of(context, repeats.index(of))
        return [(folds == fold, (fold,)) for fold in fold_numbers(context.study, repeats.index(of))]
    if of == "left_out_site" and context.site in context.study.split.train:
        return [(context.table.part == "train", (left_out_number(context.study, context.site),))]
    return []


def outcome_class(context: Context, endpoint: str) -> NDArray[np.int64]:
    """0/1 class of each patient: the binary endpoint, or the event indicator of survival; NaN counts as 0.

    Of a continuous endpoint all patients are of class 0.
    """
    columns = context.table.columns
    if context.study.endpoint[endpoint].kind == "continuous":
        return np.zeros(len(context.table), dtype=np.int64)
    name = f"endpoint.{endpoint}"
    values = columns[name] if name in columns else columns[f"{name}.event"]
    return np.nan_to_num(values).astype(np.int64)


def selected(context: Context, rows: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Patients of ``{"part", "without": what is left out, "where": [variable, value], "endpoint"}``; (n,).

    What is left out: folds of one repeat, and the `left_out_number` of a site, which then has no patients.
    """
    table = context.table
    chosen = table.part == rows["part"]
    if rows.get("without"):
        folds = folds_of(context, repeat_of(context.study, rows["without"]))
        chosen &= ~np.isin(folds, np.asarray(rows["without"], dtype=np.int64))
        trains = context.site in context.study.split.train
        if trains and left_out_number(context.study, context.site) in rows["without"]:
            chosen[:] = False
    if rows.get("where"):
        variable, value = rows["where"]
        chosen &= table.columns[variable] == value
    if rows.get("endpoint"):
        name = f"endpoint.{rows['endpoint']}"
        known = table.columns[name] if name in table.columns else table.columns[f"{name}.event"]
        chosen &= ~np.isnan(known)
    return chosen
