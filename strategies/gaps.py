"""Gaps: a site's columns with what chained equations put where values are missing, and the rows these are fitted on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cohortium.common.cohort import keyed_hash
from cohortium.strategies import views
from cohortium.strategies.chained import Chain, Incomplete, complete
from cohortium.strategies.rows import Array, Counts


def incomplete(view: views.View, context: views.Context) -> Incomplete:
    """Recorded terms of ``{"rows", "blocks"}``, NaN = missing, beside each patient's key."""
    rows = views.selected(context, view["rows"])
    x = views.raw_design(context, view["blocks"], tuple(view["rows"].get("without", ())), "final")
    return Incomplete(x=x[rows], key=keys(context)[rows])


def filled(context: views.Context, block: Mapping[str, Any]) -> Array:
    """Terms of ``{"terms", "chain": digest}`` for every patient of the table, (n, p), no NaN."""
    published = context.objects[block["chain"]]

    def compute() -> Array:
        x = views.raw_design(context, [{"terms": published["terms"]}], (), "final")
        return complete(Incomplete(x=x, key=keys(context)), Chain(**published["equations"]))

    values = context.once(("filled", block["chain"]), compute)
    return values[:, [published["terms"].index(term) for term in block["terms"]]]


def keys(context: views.Context, purpose: str = "impute") -> Counts:
    """Keyed hash of every patient of the table, (n,), from which draws for its gaps are made, or other choices."""

    def compute() -> Counts:
        seed, ids = context.study.study.seed, context.table.patient_id
        hashes = [keyed_hash(purpose, seed, context.site, patient_id) for patient_id in ids]
        return np.array(hashes, dtype=np.uint64).view(np.int64)

    return context.once(("keys", purpose), compute)
