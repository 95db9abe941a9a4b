"""Cohort: the patients that a site has summed over, so that no two sums differ by a few of them.

Two totals over the same sites and patients but one say everything about that one (differencing). A site therefore
freezes, at its first masked answer over a part, which patients these are and with which sites they are summed, for all
statistics, runs and studies. The patients are known by keyed digests, which mean nothing without the site's secret and
never leave it. Pairs of cohorts are compared; that a third one is not nearly the union of two is for the person to see
who approves it.
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohortium.common import masks
from cohortium.common.errors import SumRefused

ROW = 8  # bytes of a patient's digest; among 1e6 patients two are alike with a probability of 3e-8


class Cohort(NamedTuple):
    """The patients of one part, as a sum asks for them.

    part : its name; rows : sorted keyed digests, 8 bytes a patient; minimum_count : of the study;
    approved : whether this site approved to sum these patients beside others of the part.
    """

    part: str
    rows: bytes
    minimum_count: int
    approved: bool = False


class Frozen(NamedTuple):
    """What has been summed: a part, the digest of the sites it was summed with, its patients."""

    part: str
    roster: bytes
    rows: bytes


def rows_of(secret: bytes, patient_ids: Iterable[str]) -> bytes:
    """Sorted 8-byte digests of patients under a site's secret, whatever their order."""
    return b"".join(
        sorted(hashlib.blake2b(str(id_).encode(), digest_size=ROW, key=secret).digest() for id_ in patient_ids)
    )


def name_of(part: str, rows: bytes) -> bytes:
    """32 bytes that stand for a cohort."""
    return masks.digest("cohort", part, rows)


def differing(rows: bytes, others: bytes) -> tuple[int, int]:
    """How many patients are in one of two cohorts only, and how many in both."""
    here, there = _patients(rows), _patients(others)
    shared = np.intersect1d(here, there, assume_unique=True).size
    return here.size + there.size - 2 * shared, shared


def admit(cohort: Cohort, roster: bytes, earlier: Iterable[Frozen]) -> None:
    """Refuse a cohort whose sums could be subtracted from earlier ones.

    Raises
    ------
    SumRefused
        Patients of it were summed with other sites; or it differs from a cohort of its part, or of its patients, by
        fewer than minimum_count, or by more and without the site's approval. Tells no number of patients.
    """
    what = f"cohort of part {cohort.part}"
    for known in earlier:
        differ, shared = differing(cohort.rows, known.rows)
        if known.part != cohort.part and not shared:
            continue  # the disjoint parts of a study
        if shared and known.roster != roster:
            raise SumRefused(
                what,
                "its patients were summed over other sites, or sites with other keys; two sums over different sites "
                "tell one site's numbers apart, so only the same sites can take part",
            )
        if 0 < differ < cohort.minimum_count:
            raise SumRefused(
                what,
                f"differs from patients that were summed before by fewer than minimum_count = {cohort.minimum_count}; "
                "two such sums tell these few apart. Prepare the same patients as before",
            )
        if differ and not cohort.approved:
            raise SumRefused(
                what,
                "other patients of it were summed before; look at the difference and approve it with cohortium site "
                "approve --cohort study.toml, or prepare the same patients as before",
            )


def _patients(rows: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(rows, "<u8")
