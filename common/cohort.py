"""Cohort: the part and the fold a patient belongs to, decided at the site by a keyed hash that anyone can recompute.

No list of patients leaves a site: the rule is public, the order of patients in a file makes no difference.
"""

import hashlib
import hmac
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cohortium.common.declared_files import nearest
from cohortium.common.errors import SiteError
from cohortium.common.study import Study
from cohortium.common.study_data import level_text

Texts = NDArray[np.object_] | NDArray[np.str_]


def keyed_hash(purpose: str, seed: int, site: str, patient_id: str) -> int:
    """First 8 bytes (big-endian) of HMAC-SHA256, key ``cohortium/1/PURPOSE/SEED``, message site, unit separator, id."""
    key = f"cohortium/1/{purpose}/{seed}".encode()
    return int.from_bytes(hmac.digest(key, f"{site}\x1f{patient_id}".encode(), hashlib.sha256)[:8], "big")


def assign_parts(
    study: Study, site: str, ids: Sequence[str] | Texts, part_column_values: Sequence[object] | Texts | None = None
) -> NDArray[np.str_]:
    """Part of each patient: ``train``, ``internal`` or ``external``; empty where the part column names none of them.

    An external site's patients are all external. At a training site the part column decides where the study has one,
    else ``internal`` is where the keyed hash / 2^64 lies below ``internal_fraction``.

    Parameters
    ----------
    ids : (n,) text
    part_column_values : (n,) values of ``split.part_column.column``
        Needed at training sites of studies with a part column.

    Raises
    ------
    SiteError
        The site is not one of the study's.
    """
    split = study.split
    if site in split.external:
        return np.full(len(ids), "external")
    if site not in split.train:
        raise SiteError(f"site {site!r} is not in [split] of study {study.study.name!r}; {nearest(site, study.sites)}")
    if split.part_column is not None:
        if part_column_values is None:
            raise SiteError(f"site {site!r}: parts need the values of column {split.part_column.column!r}; give them")
        parts = split.part_column.parts
        return np.array([parts.get(level_text(value), "") for value in part_column_values], dtype="<U8")
    threshold = split.internal_fraction or 0.0
    hashes = (keyed_hash("part", study.study.seed, site, patient_id) for patient_id in ids)
    return np.array(["internal" if value / 2**64 < threshold else "train" for value in hashes], dtype="<U8")


def site_offset(study: Study, site: str) -> int:
    """Index of a site among the sorted training sites: where its folds start, so that small folds do not pile up."""
    return sorted(study.split.train).index(site)


def assign_folds(
    seed: int,
    site: str,
    offset: int,
    ids: Sequence[str] | Texts,
    classes: Sequence[float] | NDArray[np.float64] | NDArray[np.int64],
    folds: int,
    *,
    label: str = "",
) -> NDArray[np.int64]:
    """Fold of each patient, 0 .. folds - 1: within site x class, (rank by keyed hash + offset) mod folds.

    Parameters
    ----------
    offset : int
        `site_offset` of the site.
    ids : (n,) text
        The patients that share the folds: all of train, or those of one outer training set.
    classes : (n,)
        Outcome, or the event indicator of a survival endpoint.
    label : str
        Inner folds name themselves (``"lasso/score/2"``), so that they are independent of the outer ones: the key is
        then ``cohortium/1/fold/LABEL/SEED``.
    """
    purpose = f"fold/{label}" if label else "fold"
    order = np.array([keyed_hash(purpose, seed, site, patient_id) for patient_id in ids], dtype=np.uint64)
    groups = np.asarray(classes, dtype=np.float64)
    fold = np.empty(len(ids), dtype=np.int64)
    for value in np.unique(groups):
        members = np.flatnonzero(groups == value)
        ranked = members[np.argsort(order[members], kind="stable")]
        fold[ranked] = (np.arange(len(ranked)) + offset) % folds
    return fold
